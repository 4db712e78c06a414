"""Small tools: Adam, device, precision, seeds, processes, pixels, ONNX files, signals."""

__all__ = [
    "adam",
    "device",
    "distributed",
    "durations",
    "interrupt",
    "onnx_model",
    "pixels",
    "randomness",
]
