"""The presets, and one dial from which each derives its numbers."""

from nanochat.recipes.presets import PRESETS, find, named

__all__ = ["PRESETS", "find", "named"]
