"""Text, tasks and tokens: where they come from and how they become training batches."""
