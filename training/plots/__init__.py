"""Pictures: grids of images, and curves."""
