"""The `nanochat` command: one file a group of verbs, and how their results look."""
