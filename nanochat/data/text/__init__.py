"""Text shards as tokens, and batches of them for pretraining."""
