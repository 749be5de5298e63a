"""The `nanochat` command: one file per group of verbs, and how their results look."""
