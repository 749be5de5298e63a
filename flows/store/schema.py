"""What a small file of the store must look like to be read: records, leases, roots, manifests.

Whoever can write to a store can write anything, and disks and copies change bytes: what does not fit is
damaged, said in one line, and never reaches the code behind. Only checks; `flows.store.storage` reads, and
the modules that own a kind of file say what is in it.
"""

from __future__ import annotations

import functools
import math
from datetime import datetime
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())
NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"  # safe as part of a path and of an address
HASH = r"[0-9a-f]{64}"
_LARGEST = 10**30  # of whole numbers; more cannot be shown or summed, and nothing counts so far


def _safe_path(path: str) -> str:
    """Refuse a path that leads out of its folder, or that not every storage can hold."""
    parts = path.split("/")
    if not path.isprintable() or "\\" in path or any(p != p.strip() or p in ("", ".", "..") for p in parts):
        raise ValueError("is not a path of a file inside its folder")
    return path


def _moment(text: str) -> str:
    """Refuse what is not a date and time in ISO 8601."""
    seconds_of(text)
    return text


def seconds_of(moment: str) -> float:
    """Return seconds since the epoch of an ISO 8601 time; raise ValueError for anything else."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except OverflowError as error:
        raise ValueError(str(error)) from None


def require_finite(value: dict[str, Any] | list[Any]) -> None:
    """Refuse numbers at any depth of a JSON value that cannot be written back or compared."""
    for item in value.values() if isinstance(value, dict) else value:
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is float and not math.isfinite(item):
            raise ValueError(f"holds the number {item}")
        if kind is int and abs(item) > _LARGEST:
            raise ValueError(f"holds a number above {_LARGEST:.0e}")
        if kind is dict or kind is list:
            require_finite(item)


Name = Annotated[str, Field(max_length=200, pattern=f"^{NAME}$")]  # of a stage or root
Hash = Annotated[str, Field(pattern=f"^{HASH}$")]
Key = Hash
Text = Annotated[str, Field(max_length=1000)]
Count = Annotated[int, Field(ge=0, le=2**63)]
FilePath = Annotated[str, Field(max_length=1000), AfterValidator(_safe_path)]
Moment = Annotated[str, Field(max_length=40), AfterValidator(_moment)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Plain = dict[str, Any]  # any JSON; `require_finite` is for its reader
Ref = tuple[Name, Key]  # (stage, key)


class Foreign(BaseModel):
    """Base of what is read from a store."""

    model_config = STRICT


def read(kind: type[T], data: bytes) -> T:
    """Return the JSON text `data` as a `kind`; raise ValueError with the first thing that does not fit."""
    try:
        fits: T = _adapter(cast(Any, kind)).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {problem}" if place else problem) from None
    return fits


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
