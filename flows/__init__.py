"""Which stages run, when, and whether they must run again: the pipeline around `nanochat`."""
