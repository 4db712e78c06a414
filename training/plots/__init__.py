"""Pictures: grids of images, plots, and the HTML pages that show them."""

__all__ = ["charts", "figures", "grids", "pages"]
