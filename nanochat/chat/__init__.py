"""Talking with a model: generation, the calculator tool, the terminal chat."""
