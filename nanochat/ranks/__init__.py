"""One stage on several processes: torchrun, its ranks, and what they share."""
