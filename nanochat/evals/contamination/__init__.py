"""Which evaluation items occur in the training text."""
