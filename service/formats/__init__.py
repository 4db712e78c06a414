"""Pixels in, bytes out: one file a format, and the choice among them."""
