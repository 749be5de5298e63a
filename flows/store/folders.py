"""Local folders on both sides of a stage: the output to keep, and the inputs to read.

`scan` lists and hashes the files of an output folder and refuses what an artifact cannot hold; `link` puts a
stored file into an input folder. No store access here.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flows.store.records import ArtifactFile
from nanochat.errors import StoreError
from nanochat.file_digest import sha256_of

_HASHERS = 4  # hashing releases the interpreter lock


@dataclass(frozen=True)
class Scanned:
    """Files of an output folder, in order of path."""

    files: tuple[ArtifactFile, ...]
    attachments: tuple[ArtifactFile, ...]
    sources: Mapping[str, Path]  # sha256 -> a local file with these bytes


def scan(folder: Path, attachments: Sequence[str] = ()) -> Scanned:
    """List and hash all files of `folder`; those matching a pattern of `attachments` are kept apart.

    Raises:
        StoreError: no file, a link or special file, or a name that not every storage can hold.
    """
    paths = sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix())
    with ThreadPoolExecutor(_HASHERS) as pool:
        hashes = list(pool.map(sha256_of, paths))
    files: list[ArtifactFile] = []
    attached: list[ArtifactFile] = []
    for path, sha256 in zip(paths, hashes, strict=True):
        name = path.relative_to(folder).as_posix()
        kind = attached if any(fnmatch.fnmatchcase(name, pattern) for pattern in attachments) else files
        kind.append(ArtifactFile(name, path.stat().st_size, sha256))
    if not files:
        raise StoreError(
            f"{folder} holds no files: there is nothing to keep", hint="the stage must write to `out`"
        )
    return Scanned(tuple(files), tuple(attached), dict(zip(hashes, paths, strict=True)))


def link(source: Path, target: Path) -> None:
    """Make `target` a link to the stored file `source`, replacing what is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.symlink_to(source)


def _files(folder: Path) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        raise StoreError(f"{folder} does not exist: there is nothing to keep") from None
    for entry in entries:
        if not entry.name.isprintable() or "\\" in entry.name or entry.name != entry.name.strip():
            raise StoreError(
                f"{entry.path!r} has a name that not every storage can hold",
                hint="use printable characters, no backslash, no spaces at the ends",
            )
        if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
            raise StoreError(f"{entry.path} is a link or special file", hint="write plain files to `out`")
        if entry.is_dir():
            yield from _files(Path(entry.path))
        else:
            yield Path(entry.path)
