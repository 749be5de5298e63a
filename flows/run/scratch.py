"""Local folders of running stages, swept once their process is gone; and of downloads that outlive it.

A folder in use is locked, and the kernel ends a lock with its process: that distinguishes dead processes from
living ones even between containers that share a home, where a process id would not. Nothing here is part of
an artifact.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PARTIAL, _LOCK = "partial-", ".lock"
_MADE_HERE = re.compile(r"[0-9]+-[a-z0-9_]{8}")  # the process id, and what `mkdtemp` adds
_OWN: set[Path] = set()  # the folders that this process uses


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """Give a new folder below `root`, locked until it is removed at the end."""
    root.mkdir(parents=True, exist_ok=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
        with _lock(folder, without_locks=True) as mine:
            if not mine:  # another process swept it before it was locked
                continue
            _OWN.add(folder)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                _OWN.discard(folder)
            return


def drop_own_folders(root: Path) -> None:
    """Remove this process's folders below `root`, for one that is about to end whatever uses them."""
    for folder in [folder for folder in _OWN if folder.parent == root]:
        shutil.rmtree(folder, ignore_errors=True)


def partial_folder(root: Path, key: str) -> Path:
    """Return where a stage keeps what it has downloaded, so that the next try continues there."""
    return root / f"{_PARTIAL}{key}"


def drop_partial(root: Path, key: str) -> None:
    """Remove what a finished stage has downloaded."""
    shutil.rmtree(partial_folder(root, key), ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove the folders of processes that ended without doing so themselves; none with another's name."""
    for folder in root.iterdir() if root.exists() else ():
        if not _MADE_HERE.fullmatch(folder.name):  # a download that goes on, or a user's own folder
            continue
        with suppress(OSError), _lock(folder, without_locks=False) as abandoned:  # such as another user's
            if abandoned:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(folder: Path, *, without_locks: bool) -> Iterator[bool]:
    """Try to hold a folder for a while; False if another process does, or if it is gone.

    `without_locks` is the result on a file system without locks.
    """
    try:
        # A file, since network file systems lock nothing that cannot be opened for writing.
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = (folder / _LOCK).exists()
    except BlockingIOError:
        held = False
    except OSError:
        held = without_locks
    try:
        yield held
    finally:
        os.close(handle)
