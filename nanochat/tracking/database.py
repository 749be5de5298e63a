"""The embedded SQLite database of MLflow: made by one process at a time, and whole or not at all.

Making its tables takes dozens of migrations and seconds. A process killed in between would leave a file that
MLflow refuses for good, so they are made in a file beside it that is then renamed. A database whose tables
another version of MLflow made is named before any work. Imports no MLflow: the caller knows how tables are
made, and their versions are read from the names of its migrations.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import importlib.util
import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from nanochat.sqlite_urls import sqlite_path, sqlite_url

_DOWN = re.compile(r"^down_revision.*$", re.MULTILINE)


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


def is_locked(error: BaseException) -> bool:
    """Return whether SQLite was waiting for another process that writes: trying again will do."""
    return "database is locked" in str(error)


def schema_problem(url: str) -> tuple[str, str] | None:
    """Return why the installed MLflow cannot use a local database, and the ways out; None if it can."""
    path = sqlite_path(url)
    found = None if path is None else _schema(path)
    if found is None:
        return None
    known, newest = _migrations()
    if found == newest or newest is None:
        return None
    installed = f"MLflow {version('mlflow')}"
    if found in known:
        why = f"is of an older MLflow than {installed} (its schema is {found}, not {newest})"
        way_out = f"copy the file, then run: mlflow db upgrade {shlex.quote(url)}"
    else:
        why = f"is of another, probably newer MLflow than {installed}, which does not know its schema {found}"
        way_out = "install the MLflow that wrote it"
    return f"{path} {why}", f"{way_out}; or let MLFLOW_TRACKING_URI name another database"


def _schema(path: Path) -> str | None:
    """Return the version of a database's tables; None if there are none, or for MLflow to judge."""
    if not path.is_file() or path.stat().st_size == 0:
        return None
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
        ) as db:
            row = db.execute("select version_num from alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else None


def _migrations() -> tuple[frozenset[str], str | None]:
    """Return all versions that the installed MLflow knows, and the newest."""
    spec = importlib.util.find_spec("mlflow")
    folders = (spec.submodule_search_locations if spec else None) or []
    texts = [
        file.read_text(encoding="utf-8")
        for folder in folders
        for file in Path(folder, "store", "db_migrations", "versions").glob("*.py")
    ]
    known = {m[1] for text in texts if (m := re.search(r'^revision(?:: \w+)? = "(\w+)"', text, re.MULTILINE))}
    followed = {
        name for text in texts for line in _DOWN.findall(text) for name in re.findall(r'"(\w+)"', line)
    }
    newest = known - followed
    return frozenset(known), newest.pop() if len(newest) == 1 else None
