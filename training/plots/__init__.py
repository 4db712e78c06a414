"""Pictures: grids of images, and plots."""

__all__ = ["curves", "figures", "grids"]
