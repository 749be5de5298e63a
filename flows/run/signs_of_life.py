"""Whether a stage on another machine is still at work, as its lease shows.

A server marks a flow run as crashed when somebody reports it: its worker, or the automation that misses its
heartbeats. Where neither is there, a stage whose machine is gone would be waited for without end. Its process
renews a lease in the store for as long as it lives; one that has run out and was not given back is its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flows.store.leases import LeaseInfo
from nanochat.errors import StoreError

LOST_AFTER_S = 120.0  # time for a worker or the automation to report it, with its exit code
_LOOK_EVERY_S = 15.0


@dataclass
class SignsOfLife:
    """Follows the lease of one stage from before its flow run was submitted."""

    lease: Callable[[], LeaseInfo | None]
    clock: Callable[[], float] = time.monotonic
    _others: str | None = field(init=False)  # who left a lease before
    _looked: float = field(init=False, default=float("-inf"))
    _dead_since: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        held = self._current()
        self._others = held.holder if held else None

    def lost(self) -> bool:
        """Return whether the stage began since, and its process has been gone for a while."""
        now = self.clock()
        if now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            held = self._current()
            if held is None or held.holder == self._others or held.live:
                self._dead_since = None
            elif self._dead_since is None:
                self._dead_since = now
        return self._dead_since is not None and now - self._dead_since >= LOST_AFTER_S

    def _current(self) -> LeaseInfo | None:
        try:
            return self.lease()
        except (StoreError, OSError):  # nothing is known
            return None
