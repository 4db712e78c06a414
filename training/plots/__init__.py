"""Pictures: grids of images, and curves."""

__all__ = ["canvas", "curves", "grids"]
