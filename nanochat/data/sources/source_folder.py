"""What is below a folder or URL: every entry by its path in it. Nothing is opened, and no link is followed.

One request lists a whole bucket where the file system can do that; elsewhere each folder is listed, and one
that cannot be is an error, since its files would be missing without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from nanochat.data.sources.transfer import filesystem_of
from nanochat.errors import DataError
from nanochat.system_errors import reason

_SORTS_THE_PAGE = re.compile(r"https?://.*/\?[^/]*")  # links of a web server's page of files to itself


@dataclass(frozen=True)
class Listing:
    """The entries of a folder that are not folders themselves, by path below it, in order."""

    filesystem: Any
    root: str
    entries: Mapping[str, Mapping[str, Any]]

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine."""
        return "file" in self.filesystem.protocol


def list_folder(field: str, source: str) -> Listing:
    """List everything below a folder; raise DataError, with the field that names it, where that fails."""
    if not source.strip():  # would be the folder that the command is run in
        raise DataError(f"{field} is empty", hint="give a folder or URL; `.` is the folder that you are in")
    filesystem, root = filesystem_of(source)
    try:
        found = list(_entries(filesystem, root))
        if not found:
            filesystem.info(root)  # a prefix without any key is not an empty folder
    except Exception as error:
        raise unreadable(field, source, error) from error
    entries = {_below(root, str(info["name"])): info for info in found}
    return Listing(filesystem, root, dict(sorted(entries.items())))


def unreadable(field: str, source: str, error: Exception) -> DataError:
    """Return the error for a source that cannot be listed, with what was wrong."""
    return DataError(
        f"{field} {source}: cannot be read: {reason(error)}",
        hint="check the address and your access to it; `nanochat show` predicts the cost without it",
    )


def _entries(filesystem: Any, root: str) -> Iterator[Mapping[str, Any]]:
    if _lists_at_once(filesystem):
        found = filesystem.find(root, detail=True).values()
        # A bucket's console makes an empty object for a folder, whose name ends with a slash.
        yield from (i for i in found if i["type"] != "directory" and not str(i["name"]).endswith("/"))
        return
    folders = [root]
    while folders:
        folder = folders.pop()
        for info in filesystem.ls(folder, detail=True):
            name = str(info["name"])
            if info["type"] != "directory":
                if not _SORTS_THE_PAGE.fullmatch(name):
                    yield info
            elif name.rstrip("/") != folder.rstrip("/"):
                folders.append(name)


def _lists_at_once(filesystem: Any) -> bool:
    if isinstance(filesystem, AsyncFileSystem):
        return type(filesystem)._find is not AsyncFileSystem._find
    return type(filesystem).find is not AbstractFileSystem.find


def _below(root: str, name: str) -> str:
    """Return a path relative to the root; of the root itself, if it is a file, its name."""
    base = root.rstrip("/")
    return name[len(base) + 1 :] if name.startswith(f"{base}/") else PurePosixPath(name).name
