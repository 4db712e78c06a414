"""Pixels in, bytes out: one module for each image and archive format, and content negotiation.

Archives are written image by image, in memory that does not grow with their length. Nothing here
computes an image or knows of HTTP.
"""

__all__ = [
    "animation",
    "detection",
    "images",
    "json_answers",
    "layout",
    "marks",
    "negotiation",
    "npy",
    "oip_schemas",
    "oip_tensors",
    "openai_schemas",
    "parquet",
    "records",
    "registry",
    "webdataset",
]
