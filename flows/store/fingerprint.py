"""Canonical JSON and its hash: the identity of everything the pipeline makes.

The same value gives the same text on every machine and Python version; a value without a stable form is
refused with the name of its field instead of being guessed at (pickle, `repr` and iteration order change
between versions). What goes into a key is decided by the planner, not here.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class HasIdentity(Protocol):
    """An object that decides itself which part of it is hashed, such as a `Config`."""

    def identity(self) -> Mapping[str, Any]:
        """Return that part."""


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces; the same value is always the same text.

    Takes None, bool, int, float, str, lists, tuples, mappings with string keys, enums of such values,
    dataclasses and objects with an `identity`.

    Raises:
        TypeError: a value has no stable form; names the field and the fix.
    """
    return json.dumps(
        _plain(value, "value"), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def fingerprint(payload: Any) -> str:
    """Return the sha256 of the canonical JSON of `payload`, in hex."""
    return hashlib.sha256(canonical_json(payload).encode()).hexdigest()


def _plain(value: Any, field: str) -> Any:
    """Return `value` built of plain JSON types only; `field` is its name in messages."""
    if isinstance(value, enum.Enum):  # before str and int: enums may be both
        return _plain(value.value, field)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return _text(value, field)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{field} is {value}, which JSON cannot hold; use None or a finite number")
        return float(value) + 0.0  # -0.0 and 0.0 are equal, so they are the same text
    if isinstance(value, Mapping):
        return _mapping(value, field)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{field}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, HasIdentity) and not isinstance(value, type):
        return _plain(value.identity(), field)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name), f"{field}.{name}") for name in names}
    raise TypeError(f"{field} is {_kind(value)}, which has no stable form; {_way_out(value)}")


def _mapping(value: Mapping[Any, Any], field: str) -> dict[str, Any]:
    plain = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"{field} has the key {key!r} of type {type(key).__name__}; use str keys")
        plain[_text(key, field)] = _plain(item, f"{field}.{key}")
    return plain


def _text(value: str, field: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TypeError(
            f"{field} is {value!r}, not valid Unicode; use text without lone surrogates"
        ) from None
    return str(value)


def _kind(value: Any) -> str:
    return f"the function {value.__qualname__}" if hasattr(value, "__qualname__") else type(value).__name__


def _way_out(value: Any) -> str:
    if isinstance(value, set | frozenset):
        return "use a sorted tuple"
    if isinstance(value, PurePath):
        return "where bytes are is not identity: use their digest, or a str that names them"
    if isinstance(value, bytes | bytearray):
        return "use their sha256 or a hex str"
    if callable(value):
        return 'name it by a str such as "module:function"'
    return "use plain values, a dataclass or a Config"
