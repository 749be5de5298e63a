"""Addresses of SQLite files, as SQLAlchemy and thereby Prefect and MLflow read them, whatever the path.

In an address `%` begins an escape and `?` ends the path, so a path with one of them is escaped; all other
paths stay as people write them. Opens no database.
"""

from __future__ import annotations

import re
from pathlib import Path

_SPECIAL = re.compile(r"[%?]")
_ADDRESS = re.compile(r"sqlite(\+\w+)?:///(?P<rest>.*)", re.DOTALL)


def sqlite_url(path: Path, driver: str | None = None) -> str:
    """Return the address of a database file, for SQLAlchemy's usual driver or another."""
    if not _SPECIAL.search(str(path)):
        return f"sqlite{f'+{driver}' if driver else ''}:///{path}"
    from sqlalchemy import URL

    # With the driver named: MLflow takes the rest of a `sqlite:///` address for a path as it stands, and
    # makes that folder.
    url = URL.create(f"sqlite+{driver or 'pysqlite'}", database=str(path))
    return url.render_as_string(hide_password=False)


def sqlite_path(url: str) -> Path | None:
    """Return the file that an address names; None for a server, or a database in memory."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        return None
    name = found["rest"]
    if _SPECIAL.search(name):
        from sqlalchemy import make_url

        name = make_url(url).database or ""
    return Path(name) if name not in ("", ":memory:") else None
