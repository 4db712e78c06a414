"""Export of a run to a model file: ONNX, manifest, model card, Triton repository."""

__all__ = ["export"]
