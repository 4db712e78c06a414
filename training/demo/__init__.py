"""Small experiments that show how a GAN learns."""

__all__ = ["drawing", "gaussian"]
