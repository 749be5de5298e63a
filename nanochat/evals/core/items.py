"""The items of CORE tasks: read from a file of JSON lines, each checked for what its kind of task needs.

An item that cannot be asked or scored is an error with its file and line, before anything is scored. What
becomes of items is decided by `nanochat.evals.core.bundle`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from nanochat.data.chat.messages import shown
from nanochat.data.chat.rows import bad_row, read_objects

Kind = Literal["multiple_choice", "schema", "language_modeling"]
Item = Mapping[str, Any]


def read_items(file: Path, kind: Kind) -> list[Item]:
    """Read the items of a task; raise DataError naming the line of one that cannot be asked or scored."""
    rows = read_objects(file, dict.fromkeys(FIELDS[kind], object))
    for number, item in rows:
        for field, wrong_in in FIELDS[kind].items():
            if wrong := wrong_in(item[field]):
                raise bad_row(file, number, f"{field} {wrong}")
        if kind in _OPTIONS and item["gold"] >= len(options := item[_OPTIONS[kind]]):
            last = len(options) - 1
            raise bad_row(file, number, f"gold is {item['gold']}, not 0 to {last}, the number of an option")
    return [item for _, item in rows]


def _wrong_text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"is {shown(value)}, which is not text"


def _wrong_answer(value: Any) -> str | None:
    return _wrong_text(value) or (None if value.strip() else "is empty, which leaves nothing to score")


def _wrong_options(value: Any) -> str | None:
    if not isinstance(value, list) or len(value) < 2:
        return f"is {shown(value)}, which is not a list of two or more"
    return next((f"has one that {wrong}" for option in value if (wrong := _wrong_answer(option))), None)


def _wrong_gold(value: Any) -> str | None:
    counts = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return None if counts else f"is {shown(value)}, not the number of an option, from 0 on"


FIELDS: dict[Kind, dict[str, Callable[[Any], str | None]]] = {
    "multiple_choice": {"query": _wrong_text, "choices": _wrong_options, "gold": _wrong_gold},
    "schema": {"context_options": _wrong_options, "continuation": _wrong_answer, "gold": _wrong_gold},
    "language_modeling": {"context": _wrong_text, "continuation": _wrong_answer},
}
"""What an item of each kind has, and what checks it."""
_OPTIONS: dict[Kind, str] = {"multiple_choice": "choices", "schema": "context_options"}
