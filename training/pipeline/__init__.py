"""From a folder of images to an exported model: choices, and the phases one after another.

Each phase is the function of another command.
"""

__all__ = ["build"]
