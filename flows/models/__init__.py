"""Models in the store: found by reference, imported, exported, scored again."""
