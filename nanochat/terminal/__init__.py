"""The chat in a terminal: what a line does, how lines are typed, how answers look."""
