"""`python -m flows` is the `nanochat` command."""

from flows.cli.app import main

main()
