"""What a plan says of one node; how that is decided is `flows.plan.plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flows.plan.changes import Change
from flows.stage import Node
from flows.store import Record

Action = Literal["hit", "run", "wait"]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What will happen to one node, and why."""

    node: Node
    action: Action
    reason: str
    key: str | None = None  # None while an input is still unknown
    payload: Mapping[str, Any] | None = None  # what the key is the hash of
    record: Record | None = None  # the hit
    changes: tuple[Change, ...] = ()
    drift: bool = False  # a hit whose code has changed since, but not its version
    seconds: float | None = None  # how long it took last time
