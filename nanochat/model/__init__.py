"""The transformer, its key-value cache and its checkpoints."""
