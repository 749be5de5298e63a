"""The embedded SQLite database of MLflow: made by one process at a time, and whole or not at all.

Making its tables takes dozens of migrations and seconds. A process killed in between would leave a file that
MLflow refuses for good, so they are made in a file beside it that is then renamed. Knows nothing of MLflow:
the caller knows how tables are made.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
from collections.abc import Callable, Iterator

from nanochat.sqlite_urls import sqlite_path, sqlite_url


@contextlib.contextmanager
def database_ready(uri: str, make_tables: Callable[[str], None]) -> Iterator[None]:
    """Make the database at `uri` if it does not exist; other processes wait until the block ends.

    `make_tables` is called with the address of a new database and must close it. A server makes its own.
    """
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists() or path.stat().st_size == 0:
            part = path.with_name(f".{path.name}.new")
            for left in path.parent.glob(
                f"{glob.escape(part.name)}*"
            ):  # by a process that was killed, journal included
                left.unlink()
            make_tables(sqlite_url(part))
            part.replace(path)
        yield
