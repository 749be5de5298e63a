"""`python -m flows` is the `nanochat` command."""

from flows.cli import main

main()
