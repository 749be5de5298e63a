"""The pages of `nanochat ui`: local Prefect, MLflow and chat servers as child processes, loopback only.

`nanochat run` starts a Prefect server for as long as it runs if none is configured; `nanochat ui` keeps all
up. One process at a time holds the shared Prefect database of a home folder, so that history stays in one
place; a second run uses the server of `nanochat ui` if that is the holder, else a temporary database. Servers
end with their parent, however it dies. Imports neither Prefect nor MLflow.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nanochat.errors import NanochatError
from nanochat.sqlite_urls import sqlite_url
from nanochat.system_errors import full_disk
from nanochat.tracking import schema_problem

_log = logging.getLogger(__name__)

# Importing Prefect's server is about six seconds of CPU; a crowded two-core machine needed over two minutes.
START_TIMEOUT_S = 300.0
SETTLE_LIMIT_S = 15.0
SETTLED_S = 2.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot see our loopback

_PREFECT_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",  # whole seconds; see _wait_recorded
    "DO_NOT_TRACK": "1",
}
_MLFLOW_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


@contextlib.contextmanager
def local_prefect_server(home: Path) -> Iterator[str]:
    """Yield the API address of a Prefect server on this machine, starting one where needed.

    Raises `NanochatError` naming the log file when the server does not come up.
    """
    folder = home / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if stack.enter_context(_try_lock(folder / "lock")):
            yield stack.enter_context(_prefect_server(folder, folder / "prefect.db"))
            return
        running = _url_of_ui(folder)
        if running is not None:
            yield running
            return
        _log.info("another run uses %s; this run's Prefect history is not kept", folder / "prefect.db")
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nanochat-prefect-")))
        yield stack.enter_context(_prefect_server(private, private / "prefect.db"))


@contextlib.contextmanager
def serve_pages(home: Path, mlflow_uri: str) -> Iterator[tuple[str, str]]:
    """Yield the pages of Prefect and MLflow for `home`, both servers up until the block ends.

    An MLflow address that is already a server is returned as it is. Raises `NanochatError` when another
    process holds the Prefect database, or another version of MLflow made its one.
    """
    if problem := schema_problem(mlflow_uri):
        raise NanochatError(problem[0], hint=problem[1])
    folder = home / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(_try_lock(folder / "lock")):
            raise NanochatError(
                f"{folder / 'prefect.db'} is in use by a run or another `nanochat ui`",
                hint="wait for that run to end, or open the page of the other `nanochat ui`",
            )
        api = stack.enter_context(_prefect_server(folder, folder / "prefect.db"))
        note = folder / "url"
        note.write_text(api, encoding="utf-8")
        stack.callback(note.unlink, missing_ok=True)
        is_server = mlflow_uri.startswith(("http://", "https://"))
        mlflow = mlflow_uri if is_server else stack.enter_context(_mlflow_server(home, mlflow_uri))
        yield api.removesuffix("/api"), mlflow


@contextlib.contextmanager
def chat_page(home: Path, store_url: str) -> Iterator[str]:
    """Yield the page to talk to the newest published model of a store, which it loads once it is up."""
    folder = home / "chat"
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    page = f"http://127.0.0.1:{port}"
    command = ["-m", "flows", "serve", "--port", str(port), "--store", store_url]
    with _server(command, os.environ, folder, f"{page}/", folder / "server.log"):
        yield page


@contextlib.contextmanager
def _prefect_server(folder: Path, database: Path) -> Iterator[str]:
    port = _free_port()
    api = f"http://127.0.0.1:{port}/api"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment = {
        **inherited,
        **_PREFECT_ENVIRONMENT,
        "PREFECT_HOME": str(folder),
        "PREFECT_API_DATABASE_CONNECTION_URL": sqlite_url(database, "aiosqlite"),
        "PREFECT_UI_API_URL": api,
    }
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _server(command, environment, folder, f"{api}/health", folder / "server.log"):
        try:
            yield api
        finally:
            _wait_recorded(api)


def _wait_recorded(api: str) -> None:
    """Wait until the server has written what it was sent, at most `SETTLE_LIMIT_S`.

    Task runs arrive as events that it writes in batches and drops when it stops: stopped at the end of a flow
    of 40 tasks, its database held 5 of them.
    """
    deadline = time.monotonic() + SETTLE_LIMIT_S
    seen, since = None, time.monotonic()
    while time.monotonic() < deadline:
        now = _task_run_states(api)
        if now is None:
            return  # no server to wait for
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since >= SETTLED_S:
            return
        time.sleep(0.2)


def _task_run_states(api: str) -> tuple[int, int] | None:
    """Return the numbers of all and of finished task runs; None when the server does not answer."""
    finished = {"task_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}}
    counts = []
    for body in ({}, finished):
        request = urllib.request.Request(
            f"{api}/task_runs/count",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with _DIRECT.open(request, timeout=2.0) as answer:
                counts.append(int(answer.read()))
        except OSError:
            return None
    return counts[0], counts[1]


@contextlib.contextmanager
def _mlflow_server(home: Path, uri: str) -> Iterator[str]:
    folder = home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    page = f"http://127.0.0.1:{port}"
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--default-artifact-root", (home / "mlartifacts").as_uri()]
    # Not among the arguments, which every user of the machine can list: it may have a password.
    environment = {**os.environ, **_MLFLOW_ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": uri}
    with _server(command, environment, folder, f"{page}/health", folder / "server.log"):
        yield page


@contextlib.contextmanager
def _server(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, health: str, log: Path
) -> Iterator[None]:
    """Keep a Python child up under `guard.py` while the block runs; its output goes to `log`."""
    guard = [sys.executable, "-I", str(Path(__file__).with_name("guard.py"))]
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*guard, sys.executable, "-P", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is for the run, which still needs its server to finish cleanly
        )
    try:
        _wait_healthy(child, health, log)
        yield
    finally:
        assert child.stdin is not None  # a pipe was requested
        child.stdin.close()
        child.wait()


def _wait_healthy(child: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            reason, hint = full_disk(log) or ("", f"see {log}")
            what = f"the local server exited with status {child.returncode} at startup"
            raise NanochatError(f"{what}: {reason}" if reason else what, hint=hint)
        if _is_healthy(url):
            return
        time.sleep(0.1)
    raise NanochatError(
        f"the local server did not answer at {url} within {START_TIMEOUT_S:.0f} s", hint=f"see {log}"
    )


def _is_healthy(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _url_of_ui(folder: Path) -> str | None:
    try:
        url = (folder / "url").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    return url if _is_healthy(f"{url}/health") else None


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Yield whether this process got the lock; the system frees it when the process ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
