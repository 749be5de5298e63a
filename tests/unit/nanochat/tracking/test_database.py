"""A database that appears whole or not at all, whoever is killed while it is made."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.tracking.database import database_ready

ROOT = Path(__file__).parents[4]
_MAKE_AND_DIE = """
import os, signal, sqlite3, sys
from nanochat.tracking.database import database_ready

def tables(uri):
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as db:
        db.execute("create table half (a)")
    os.kill(os.getpid(), signal.SIGKILL)

with database_ready(sys.argv[1], tables):
    pass
"""


def _tables(uri: str) -> None:
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as db:
        db.execute("create table whole (a)")
    db.close()


def _names(path: Path) -> list[str]:
    db = sqlite3.connect(path)
    try:
        return [name for (name,) in db.execute("select name from sqlite_master")]
    finally:
        db.close()


def test_a_process_killed_while_making_tables_leaves_no_database_and_the_next_makes_it_whole(tmp_path):
    path = tmp_path / "home" / "mlflow.db"
    uri = f"sqlite:///{path}"
    died = subprocess.run([sys.executable, "-c", _MAKE_AND_DIE, uri], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    assert not path.exists() and len(os.listdir(path.parent)) > 1  # noqa: PTH208 - the half-made one is there
    with database_ready(uri, _tables):
        assert _names(path) == ["whole"]
    assert {p.name for p in path.parent.iterdir()} == {"mlflow.db", "mlflow.lock"}


def test_a_database_that_is_there_is_left_alone(tmp_path):
    path = tmp_path / "mlflow.db"
    _tables(f"sqlite:///{path}")

    def refuse(uri: str) -> None:
        raise AssertionError(uri)

    with database_ready(f"sqlite:///{path}", refuse):
        assert _names(path) == ["whole"]


def test_tables_that_cannot_be_made_leave_no_database(tmp_path):
    path = tmp_path / "mlflow.db"

    def fail(uri: str) -> None:
        _tables(uri)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"), database_ready(f"sqlite:///{path}", fail):
        pass
    assert not path.exists()


def test_a_server_has_no_database_file_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with database_ready("http://127.0.0.1:5000", _tables):
        assert list(tmp_path.iterdir()) == []
