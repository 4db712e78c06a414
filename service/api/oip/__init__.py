"""Open Inference Protocol (KServe, Triton) below `/v2`: schemas, tensors, routes."""
