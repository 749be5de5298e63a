"""Conversations and problems: read, checked, mixed, rendered, batched."""
