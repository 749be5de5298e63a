"""A home and a store on which pipelines run, and what can be done to both from outside.

A store is a folder on a small disk of its own, or S3. What a site must look like afterwards is said by
`tests.campaign.verdict`, what happens to it by `tests.campaign.faults`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import s3fs

from flows.store import Store
from tests.e2e.crash_worker import ROOT, Nursery
from tests.e2e.tiny_recipe import OVERRIDES, WORDS
from tests.support.s3_server import BUCKET, S3Server

_DISK = "96m"
_FOLDERS = ("blobs", "records", "resume", "leases", "roots", "parts")
_PASSING = ("leases/", "resume/", "parts/", "roots/running-")  # end with the run that made them


class Run:
    """A process that runs the plan; `outcome` is None while it runs and after it was killed."""

    def __init__(self, pid: int, end: Callable[[], dict[str, Any] | None]) -> None:
        self.pid = pid
        self.outcome: dict[str, Any] | None = None
        self._end = end
        self._thread = threading.Thread(target=self._wait)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def tree(self) -> list[psutil.Process]:
        """Return its children of any depth: ranks, their agent, encoding processes."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _wait(self) -> None:
        try:
            self.outcome = self._end()
        except AssertionError as error:
            self.outcome = {"error": "traceback", "message": str(error)}


@dataclass
class Site:
    """Where pipelines run: `home`, and a store at `url`."""

    home: Path
    url: str
    server: S3Server | None = None
    small_disk: bool = False
    processes: int = 1  # ranks that train together
    runs: list[Run] = field(default_factory=list)

    def store(self) -> Store:
        return Store.open(self.url, cache=self.home / "look")

    def start(self, nursery: Nursery, **settings: Any) -> Run:
        """Start a run without Prefect, forked from a process that has imported everything."""
        pid = nursery.start(
            self.home, self.url, self.home / "log", overrides=OVERRIDES, processes=self.processes, **settings
        )
        self.runs.append(Run(pid, nursery.outcome))
        return self.runs[-1]

    def start_command(self) -> Run:
        """Start `nanochat run` with its Prefect server and MLflow."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NANOCHAT_", "PREFECT_", "MLFLOW_"))}
        words = [
            "--json",
            "--threads",
            "1",
            "--processes",
            str(self.processes),
            "--restart-point-every",
            "0.4",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", "run", "toy", "--store", self.url, *words, *WORDS],
            cwd=ROOT, env={**kept, "NANOCHAT_HOME": str(self.home)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.runs.append(Run(process.pid, lambda: _end_of(process)))
        return self.runs[-1]

    def objects(self) -> list[str]:
        """Return the names of all that the store holds."""
        listing = self.store().storage.listing
        return sorted(name for folder in _FOLDERS for name in listing(folder))

    def damage(self, name: str, how: str, rng: random.Random) -> bool:
        """Delete, cut short or flip one bit of an object as it lies there; return whether it was there."""
        if self.server is not None:
            return self._damage_s3(f"{self.url.removeprefix('s3://')}/{name}", how, rng)
        path = Path(self.url, name)
        try:
            if how == "delete":
                path.unlink()
            elif how == "truncate":
                os.truncate(path, rng.randrange(max(path.stat().st_size, 1)))
            else:
                with path.open("r+b") as file:
                    _flip_in(file, rng, path.stat().st_size)
        except FileNotFoundError:
            return False
        return True

    def leftovers(self) -> list[str]:
        """Return the processes, scratch folders and leases that runs have left."""
        found = [f"process {p.pid} {p.info['cmdline']}" for p in _processes_of(self.home)]
        for folder in ("scratch", "tmp", "parts"):
            found += [str(path) for path in (self.home / folder).glob("*") if path.name != "parts"]
        return found + [name for name in self.objects() if name.startswith(_PASSING)]

    def _damage_s3(self, path: str, how: str, rng: random.Random) -> bool:
        assert self.server is not None
        secrets = self.server.environment
        files = s3fs.S3FileSystem(
            endpoint_url=self.server.endpoint, key=secrets["AWS_ACCESS_KEY_ID"],
            secret=secrets["AWS_SECRET_ACCESS_KEY"], skip_instance_cache=True,
        )  # fmt: skip
        try:
            data = bytearray(files.cat_file(path))
            if how == "delete":
                files.rm_file(path)
            elif how == "truncate":
                files.pipe_file(path, bytes(data[: rng.randrange(max(len(data), 1))]))
            else:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                files.pipe_file(path, bytes(data))
        except (OSError, ValueError):  # gone, or the server is away
            return False
        return True


def _end_of(command: subprocess.Popen[str]) -> dict[str, Any] | None:
    """Wait for a `nanochat run`; return what it ended with in the form of a nursery's outcome."""
    out, err = command.communicate()
    if command.returncode == -signal.SIGKILL:
        return None
    if command.returncode == 0:
        return {"digests": {node: made["digest"] for node, made in json.loads(out)["nodes"].items()}}
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    if "Traceback" in err or not said:
        return {"error": "traceback", "message": err}
    return {"error": "error", "message": said[0]}


def _flip_in(file: Any, rng: random.Random, size: int) -> None:
    where = rng.randrange(max(size, 1))
    file.seek(where)
    byte = file.read(1) or b"\0"
    file.seek(where)
    file.write(bytes([byte[0] ^ (1 << rng.randrange(8))]))


def _processes_of(home: Path) -> Iterator[psutil.Process]:
    """Yield the processes that work for a home, named in their environment."""
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if any(str(value).startswith(str(home)) for value in process.environ().values()):
                yield process


@contextmanager
def site_on_disk(folder: Path) -> Iterator[Site]:
    """Yield a site on a small disk of its own, or on the big one where nothing may be mounted."""
    home = folder / uuid.uuid4().hex[:6]
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(home)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield Site(home, str(home / "store"), small_disk=mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(home)], check=True)


@contextmanager
def site_on_s3(folder: Path, server: S3Server) -> Iterator[Site]:
    """Yield a site whose store is an empty prefix of the server's bucket."""
    name = uuid.uuid4().hex[:6]
    home = folder / name
    home.mkdir()
    os.environ.update(server.environment)
    yield Site(home, f"s3://{BUCKET}/{name}", server)
