"""Addresses of SQLite files lead to exactly that file, in SQLAlchemy and back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from nanochat.sqlite_urls import sqlite_path, sqlite_url

_NAMES = ["plain", "a b", "100%25 %zz", "# 1", "Größe 日本", "why?x=1&y", "a@b:c;d", "[x]'\"\\", "x" * 200]


@pytest.mark.parametrize("name", _NAMES)
def test_a_database_is_where_its_path_says(name, tmp_path):
    path = tmp_path / name / "runs.db"
    path.parent.mkdir()
    url = sqlite_url(path)
    with create_engine(url).begin() as connection:
        connection.execute(text("create table made (a)"))
    with sqlite3.connect(path) as db:
        assert db.execute("select name from sqlite_master").fetchall() == [("made",)]
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert sqlite_path(url) == path
    asked = make_url(sqlite_url(path, "aiosqlite"))
    assert (asked.drivername, asked.database) == ("sqlite+aiosqlite", str(path))


def test_an_ordinary_path_stays_as_people_write_it():
    assert sqlite_url(Path("/home/me/my runs/mlflow.db")) == "sqlite:////home/me/my runs/mlflow.db"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///runs.db", "runs.db"),
        ("sqlite:////x/runs.db?timeout=30", "/x/runs.db"),
        ("sqlite:////x/a%20b.db", "/x/a b.db"),
        ("sqlite+pysqlite:////x/runs.db", "/x/runs.db"),
        ("sqlite:///:memory:", None),
        ("http://127.0.0.1:5000", None),
        ("postgresql://user@host/sqlite:///x", None),
    ],
)
def test_what_a_user_writes_names_a_file_or_none(url, path):
    assert sqlite_path(url) == (Path(path) if path else None)
