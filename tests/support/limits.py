"""Limits that the system keeps for this process while a block runs: real refusals without a full disk."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limited(which: int, limit: int) -> Iterator[None]:
    """Lower one of this process's limits, such as `resource.RLIMIT_FSIZE`."""
    before = resource.getrlimit(which)
    resource.setrlimit(which, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)
