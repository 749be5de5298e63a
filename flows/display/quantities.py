"""Times, sizes and numbers as people read them; where they are shown is up to the caller."""

from __future__ import annotations

from typing import TypeGuard

_MOST = 1e300  # what no measured number reaches; a record may hold whole numbers of any size


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value of a record is a number to reckon with: finite, and not true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST


def duration(seconds: float) -> str:
    """Return seconds as people read them: `4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def bytes_text(size: float) -> str:
    """Return a size as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def number_text(value: float | None, form: str) -> str:
    """Return a whole number in full and any other in the format `form`; None is unknown."""
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else format(value, form)
