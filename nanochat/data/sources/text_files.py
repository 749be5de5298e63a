"""Which files of a folder are text shards, and which are left out and why, in words. Nothing is opened.

Parquet files are taken wherever they are: in sub-folders, in part folders as Spark writes them, in folders
named `key=value`. What cannot be taken is never dropped without a word. How other text becomes parquet is
in `nanochat.data.sources.conversion`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.data.sources.conversion import command_to_convert, convertible_suffix
from nanochat.data.sources.shard_names import SUFFIX
from nanochat.data.sources.source_folder import Listing
from nanochat.errors import DataError

HIDDEN = "hidden (a name that begins with . or _)"
LINKED = "a link to a folder (give that folder, or copy it here)"
AGAIN = "a link to a file that is used"
NO_FILE = "not a file (a pipe, socket or device)"
EMPTY = "empty (0 bytes)"
OTHER = "not parquet"
CONVERTED = "used as parquet (NAME.parquet is beside it)"


@dataclass(frozen=True)
class NotUsed:
    """Files of a source that are not used."""

    why: str
    paths: tuple[str, ...]
    convert: str | None = None  # a command that makes them text that is taken


def text_files(listing: Listing) -> tuple[dict[str, Mapping[str, Any]], list[NotUsed]]:
    """Return the parquet files by path, in order, and everything else by why it is left out.

    Raises DataError for a parquet file that is a broken link.
    """
    taken: dict[str, Mapping[str, Any]] = {}
    others: dict[str, list[str]] = defaultdict(list)
    for path, info in listing.entries.items():
        if why := _why_not(path, info):
            why = CONVERTED if f"{path}{SUFFIX}" in listing.entries and convertible_suffix(path) else why
            others[why].append(path)
        else:
            taken[path] = info
    for path in _links_to_others(taken):  # or the text that validates would be trained on as well
        del taken[path]
        others[AGAIN].append(path)
    return taken, [_not_used(listing, why, paths) for why, paths in others.items()]


def _links_to_others(taken: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the links whose file is there by its own name, or by a link before."""
    links = [path for path, info in taken.items() if info.get("islink")]
    seen = (
        {os.path.realpath(info["name"]) for path, info in taken.items() if path not in links}
        if links
        else set()
    )
    found = []
    for path in links:
        target = os.path.realpath(taken[path]["name"])
        if target in seen:
            found.append(path)
        seen.add(target)
    return found


def _why_not(path: str, info: Mapping[str, Any]) -> str | None:
    if any(part.startswith((".", "_")) for part in path.split("/")):
        return HIDDEN
    if info.get("islink") and Path(info["name"]).is_dir():
        return LINKED
    if info["type"] == "other" and not info.get("islink"):
        return NO_FILE
    if not path.lower().endswith(SUFFIX):
        return convertible_suffix(path) or OTHER
    if info.get("islink") and not Path(info["name"]).exists():
        raise DataError(
            f"{info['name']}: a broken link to {info.get('destination')}",
            hint="put the file where the link leads, or remove the link",
        )
    return EMPTY if info.get("size") == 0 else None


def _not_used(listing: Listing, why: str, paths: list[str]) -> NotUsed:
    convert = None
    if listing.is_local and convertible_suffix(why) == why:
        convert = command_to_convert(Path(listing.root), why, len(paths))
    return NotUsed(why, tuple(paths), convert)
