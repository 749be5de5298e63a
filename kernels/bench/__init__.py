"""Times every op on a GPU, against other people's versions and the card's own limits.

`python -m kernels.bench` is the command (`__main__`). Shapes and what they cost are in `shapes`, the card's
limits in `ceilings`, the choice among variants of a kernel's configuration in `choosing`, `trials` and
`subjects`, the ops and their contenders in `ops` and `contenders`, their timing in `comparison`;
`ledger` keeps what is found and `listing` prints it.
"""
