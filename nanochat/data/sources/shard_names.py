"""Names of text shards: safe in an id or a path, and different for different files, by construction.

An ordinary file keeps its own name. Only names that would be equal (also on file systems that ignore case)
are made different, by a hash of the path. What is in a shard does not matter here.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

SUFFIX = ".parquet"
_MOST_CHARACTERS = 100  # of a name in a configuration
_DIGITS = (8, 16, 32, 64)


def shard_name(path: str) -> str:
    """Return a path without its suffix as a name of letters, digits, `.`, `_` and `-`."""
    stem = path[: -len(SUFFIX)] if path.lower().endswith(SUFFIX) else path
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip(".-")
    return safe[:_MOST_CHARACTERS] or "shard"


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Return the name of each of different paths; those that would be equal end with a hash of their path."""
    names = [shard_name(path) for path in paths]
    for digits in _DIGITS:  # a file may have the very name that another one just got
        counts = Counter(name.lower() for name in names)
        names = [
            with_ending(name, _hash(path)[:digits]) if counts[name.lower()] > 1 else name
            for name, path in zip(names, paths, strict=True)
        ]
    return names


def with_ending(name: str, ending: str) -> str:
    """Return a name that ends with something of its own, and is not too long."""
    return f"{name[: _MOST_CHARACTERS - len(ending) - 1]}-{ending}"


def _hash(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
