"""What differs between a node and the nearest record of it: why a stage runs, field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.store import Record
from nanochat.runtime import dotted


@dataclass(frozen=True)
class Change:
    """One field of what is hashed that differs from the nearest record."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field} {_short(self.before)} → {_short(self.after)}"


def changes_since(record: Record | None, payload: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return the fields of `payload` that differ from those of a record; inputs of None are not compared."""
    if record is None:
        return ()
    before, after = dotted(record.payload), dotted(payload)
    stage = str(payload["stage"])
    ignore_inputs = payload["inputs"] is None
    return tuple(
        Change(_readable(name, stage), before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not (ignore_inputs and name.startswith("inputs"))
    )


def _readable(name: str, stage: str) -> str:
    section, _, rest = name.partition(".")
    if section == "config":
        return f"{stage}.{rest}"
    return f"input {rest}" if section == "inputs" else f"stage {name}"


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    if isinstance(value, list) and value and all(isinstance(v, str) and len(v) == 64 for v in value):
        return f"{len(value)} artifacts"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def sentence(changes: Sequence[Change]) -> str:
    """Return up to four changes in one line."""
    shown = [str(c) for c in changes[:4]]
    return "; ".join(shown) + (f"; and {len(changes) - 4} more" if len(changes) > 4 else "")
