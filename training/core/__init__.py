"""Small tools: device and precision, seeds, several processes, pixels, ONNX files, signals."""
