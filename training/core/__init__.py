"""Small tools: device and precision, seeds, several processes, pixels, ONNX files, signals."""

__all__ = ["device", "distributed", "durations", "interrupt", "onnx_model", "pixels", "randomness"]
