"""A database that appears whole or not at all, whoever is killed while it is made."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.tracking import PipelineTracker
from nanochat.tracking.database import _migrations, database_ready, schema_problem

ROOT = Path(__file__).parents[4]
_MAKE_AND_DIE = """
import os, signal, sqlite3, sys
from nanochat.tracking import PipelineTracker
from nanochat.tracking.database import _migrations, database_ready, schema_problem

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


def _of_version(path: Path, revision: str) -> str:
    with sqlite3.connect(path) as db:
        db.execute("create table alembic_version (version_num)")
        db.execute("insert into alembic_version values (?)", (revision,))
    db.close()
    return f"sqlite:///{path}"


def test_tables_of_another_mlflow_are_named_with_the_ways_out(tmp_path):
    known, newest = _migrations()
    assert newest in known and len(known) > 30
    older = sorted(known - {newest})[0]
    assert schema_problem(_of_version(tmp_path / "now.db", newest)) is None
    url = _of_version(tmp_path / "older.db", older)
    why, way_out = schema_problem(url) or ("", "")
    assert "older.db is of an older MLflow" in why and older in why and newest in why
    assert f"mlflow db upgrade {url}" in way_out and "MLFLOW_TRACKING_URI" in way_out
    why, way_out = schema_problem(_of_version(tmp_path / "newer.db", "f00dfacecafe")) or ("", "")
    assert "newer MLflow" in why and "f00dfacecafe" in why and "upgrade" not in way_out


def test_a_run_says_so_before_any_work_and_goes_on(tmp_path, caplog):
    tracker = PipelineTracker(_of_version(tmp_path / "newer.db", "f00dfacecafe"))
    tracker.start_run("toy", {}, {})
    assert tracker.disabled and "newer.db is of another" in caplog.text and "hint: install" in caplog.text
    stage = tracker.stage("pretrain", tags={}, params={})
    stage.log({"train/loss": 1.0}, step=1, total_steps=1)
    tracker.finish_stage(stage, "FINISHED")
    assert tracker.run_id("pretrain") is None and tracker.root_id() is None
    tracker.close()
    assert not tracker.abandoned and len(caplog.records) == 1


def test_what_has_no_version_of_its_tables_is_left_to_mlflow(tmp_path):
    _tables(f"sqlite:///{tmp_path}/other.db")
    (tmp_path / "not.db").write_text("not a database")
    (tmp_path / "empty.db").touch()
    for url in ("other.db", "not.db", "empty.db", "missing.db"):
        assert schema_problem(f"sqlite:///{tmp_path}/{url}") is None
    assert schema_problem("http://127.0.0.1:9") is None
    assert not (tmp_path / "missing.db").exists()
