"""Real servers on loopback; each start costs ten seconds and more, hence `slow` and few."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from flows.display import servers as display
from flows.display.newest_runs import comparison_of_newest
from flows.store import Store
from flows.store.fingerprint import fingerprint
from nanochat.errors import NanochatError
from nanochat.sqlite_urls import sqlite_url
from nanochat.tracking import PipelineTracker, PublishedModel
from tests.support.serving import write_tiny_model

_HOLDER = """
import sys, time
from pathlib import Path
from flows.display.servers import local_prefect_server
with local_prefect_server(Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(600)
"""


_ODD = "a b 100%25 #1 Größe 日本 why?x=1&y;"  # as the name of a home folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / _ODD
    folder.mkdir()
    return folder


def _get(url: str) -> bytes:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=10.0) as answer:
        data = answer.read()
    assert isinstance(data, bytes)
    return data


def _end(process: subprocess.Popen[str], number: int) -> None:
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2  # guard and server
    process.send_signal(number)
    process.wait(120.0)
    gone, alive = psutil.wait_procs(family, timeout=120.0)
    assert not alive and len(gone) == len(family)


@pytest.mark.slow
def test_killed_run_leaves_no_server_and_a_second_run_has_its_own_database(home: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(home)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(display.__file__).parents[2],
    )
    assert holder.stdout
    first = holder.stdout.readline().strip()
    assert _get(f"{first}/health") == b"true"
    with display.local_prefect_server(home) as second:
        assert second != first and _get(f"{second}/health") == b"true"
        assert _get(f"{first}/health") == b"true"
    with pytest.raises(urllib.error.URLError):
        _get(f"{second}/health")
    assert (home / "prefect" / "prefect.db").is_file() and os.listdir(home.parent) == [_ODD]  # noqa: PTH208
    _end(holder, signal.SIGKILL)
    holder.stdout.close()
    with display._try_lock(home / "prefect" / "lock") as free:
        assert free


@pytest.mark.slow
def test_ui_serves_both_pages_and_lends_its_prefect_to_a_run(home: Path) -> None:
    with display.serve_pages(home, sqlite_url(home / "mlflow.db")) as (prefect, mlflow):
        assert _get(f"{mlflow}/health") == b"OK"
        assert b"<html" in _get(mlflow).lower() and b"<html" in _get(prefect).lower()
        with display.local_prefect_server(home) as api:
            assert api == f"{prefect}/api"
        assert _get(f"{prefect}/api/health") == b"true"  # the run did not stop what it borrowed
        assert comparison_of_newest(mlflow) is None and comparison_of_newest("http://127.0.0.1:1") is None
        first, second = _tracked_run(mlflow), _tracked_run(mlflow)
        assert first.comparison is None
        page = comparison_of_newest(mlflow)
        for link in (page, second.comparison):
            assert f"{mlflow}/#/compare-runs?runs=" in link
            assert all(str(run.run_id()) in link for run in (first, second))
    assert not (home / "prefect" / "url").exists()
    assert (home / "mlflow.db").is_file() and os.listdir(home.parent) == [_ODD]  # noqa: PTH208


def _tracked_run(mlflow: str) -> PipelineTracker:
    """Show a whole pipeline run with a published model, the same each time."""
    model = PublishedModel(name="nanochat-toy", key="k", digest="d", params={}, description="")
    tracker = PipelineTracker(mlflow, patience_s=120.0)
    tracker.start_run("toy", {}, {"nanochat.recipe": "toy"})
    tracker.sum_up({"core": 0.25}, model)
    tracker.close()
    assert not tracker.errors and not tracker.abandoned
    return tracker


@pytest.mark.slow
def test_ui_opens_the_page_to_talk_to_the_published_model(home: Path, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    model = write_tiny_model(tmp_path / "model")
    payload = {"stage": "publish", "config": {"title": "nanochat tiny"}}
    store.commit(
        stage="publish", node="publish", key=fingerprint(payload), payload=payload, folder=model, inputs={}
    )
    with display.chat_page(home, store.url) as page:
        assert b"<html" in _get(page).lower()
        while b'"ok"' not in (health := _health(page)):
            assert b'"loading"' in health
            time.sleep(0.1)
        assert b'"id":"nanochat-tiny"' in _get(f"{page}/v1/models")


def _health(page: str) -> bytes:
    try:
        return _get(f"{page}/health")
    except urllib.error.HTTPError as error:
        return error.read()


def test_ui_refuses_a_home_that_a_run_holds(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    with (
        display._try_lock(tmp_path / "prefect" / "lock") as held,
        pytest.raises(NanochatError, match=r"prefect\.db is in use"),
        display.serve_pages(tmp_path, "http://127.0.0.1:1"),
    ):
        assert held


def test_ui_names_a_database_of_another_mlflow_before_it_starts_anything(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    with sqlite3.connect(database) as db:
        db.execute("create table alembic_version as select 'f00dfacecafe' as version_num")
    with (
        pytest.raises(NanochatError, match="does not know its schema f00dfacecafe") as raised,
        display.serve_pages(tmp_path / "home", sqlite_url(database)),
    ):
        pass
    assert "MLFLOW_TRACKING_URI" in str(raised.value.hint)
    assert not (tmp_path / "home").exists()


def test_note_of_a_ui_that_is_gone_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"http://127.0.0.1:{display._free_port()}/api")
    assert display._url_of_ui(tmp_path) is None


def test_server_that_cannot_start_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with (
        pytest.raises(NanochatError, match="exited with status 7 at startup") as raised,
        display._server(["-c", "raise SystemExit(7)"], os.environ, tmp_path, "http://127.0.0.1:1/", log),
    ):
        pass
    assert raised.value.hint == f"see {log}"
