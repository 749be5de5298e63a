"""A real S3 server (SeaweedFS) for tests: one per test process, on free ports of the loopback address."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3fs

BUCKET = "nano"
_KEY, _SECRET = "test-key", "test-secret"
_PORTS = ("s3", "master", "volume", "filer", "admin")


@dataclass
class S3Server:
    """A server that may be frozen and thawed, or killed and started again, to play an outage."""

    endpoint: str
    command: list[str]
    folder: Path

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start it, again at the same address with what it held."""
        log = self.folder / "weed.log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=out, cwd=self.folder)
        _wait_until_ready(self.process, self.endpoint, log)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables through which the store finds this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def freeze(self) -> None:
        """Let it hang without closing its connections."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _command(weed: str, folder: Path, ports: dict[str, int]) -> list[str]:
    return [
        weed, "-logtostderr=true", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0",
        "-s3.port.lance=0", f"-s3.config={folder / 's3.json'}", f"-bucket={BUCKET}",
        *(f"-{name}.port={port}" for name, port in ports.items()),
    ]  # fmt: skip


def _wait_until_ready(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    """Wait for the bucket: the server answers before it has made it."""
    access = {"endpoint_url": endpoint, "key": _KEY, "secret": _SECRET}
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"weed ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{endpoint}/status", timeout=1):
                pass
            s3fs.S3FileSystem(**access, skip_instance_cache=True).ls(BUCKET)
            return
        except OSError:  # a missing bucket is one as well
            time.sleep(0.1)
    raise RuntimeError(f"weed was not ready in time:\n{log.read_text()[-2000:]}")


def _configured(weed: str, folder: Path) -> S3Server:
    identity = {"name": "test", "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    (folder / "s3.json").write_text(json.dumps({"identities": [{**identity, "actions": actions}]}))
    numbers = _free_ports(2 * len(_PORTS))
    ports = dict(zip(_PORTS, numbers[: len(_PORTS)], strict=True))
    grpc = {f"{name}.port.grpc": port for name, port in zip(_PORTS, numbers[len(_PORTS) :], strict=True)}
    command = _command(weed, folder, ports) + [f"-{name}={port}" for name, port in grpc.items()]
    return S3Server(f"http://127.0.0.1:{ports['s3']}", command, folder)


def find_weed() -> str | None:
    """Return the server's binary, or None where it cannot run."""
    beside_python = Path(sys.executable).with_name("weed")
    weed = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if not weed or subprocess.run([weed, "version"], capture_output=True, check=False).returncode:
        return None
    return weed


@contextmanager
def running_server(weed: str, folder: Path) -> Iterator[S3Server]:
    """Run a server with an empty bucket, its files below `folder`."""
    server = _configured(weed, folder)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server with an empty bucket; skips only where its binary cannot run."""
    weed = find_weed()
    if weed is None:
        pytest.skip("the SeaweedFS binary `weed` cannot run here")
    with running_server(weed, tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_store_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty store on the server; the environment holds its address and keys."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"
