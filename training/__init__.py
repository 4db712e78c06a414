"""Figment's training: conditional and unconditional DCGANs, from images to model files."""
