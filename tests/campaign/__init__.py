"""Faults injected into running pipelines for as long as one likes: `python -m tests.campaign --help`."""
