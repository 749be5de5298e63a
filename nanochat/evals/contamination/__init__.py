"""Which evaluation items stand in the training text."""
