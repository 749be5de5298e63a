"""What a recipe costs, before anything runs: numbers that follow from it, FLOPs, time, dollars."""
