"""A model hub on this machine with the public data sets: speaks as much of the hub's API as downloads need.

A data set can be private or gated, asks for patience as often as a test wants, and can send whoever wants its
bytes to another host. Every question is kept with the token that came with it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from nanochat.data.sources.hub import DATA_SETS
from tests.support.loopback import loopback_server

REVISION = "refs/convert/parquet"
COMMIT = "c0ffee" + "0" * 34
_CHOICES = {"text": ["one", "two"], "label": ["A", "B"]}
_ROWS = {
    "ai2_arc": {"id": "x", "question": "Which?", "choices": _CHOICES, "answerKey": "B"},
    "mmlu": {"question": "Which?", "subject": "s", "choices": ["a", "b", "c", "d"], "answer": 3},
    "gsm8k": {"question": "2+3?", "answer": "<<2+3=5>>5\n#### 5"},
    "openai_humaneval": {
        "task_id": "0", "prompt": "def f():\n", "canonical_solution": "    return 1\n",
        "test": "def check(f):\n    assert f() == 1\n", "entry_point": "f",
    },
    "smol-smoltalk": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        "source": "s",
    },
}  # fmt: skip
Answer = tuple[int, dict[str, str], bytes]


def parquet(repo: str, rows: int) -> bytes:
    """Return a file of a data set with this many rows."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([_ROWS[repo.split("/")[1]]] * rows), sink)
    return sink.getvalue()


def core_bundle(
    names: tuple[str, ...] = (
        *("core.yaml", "eval_meta_data.csv", "eval_data/world/facts.jsonl", "gpt2.csv", "../../evil"),
    ),
) -> bytes:
    """Return a CORE bundle with these files."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(f"eval_bundle/{name}", f"content of {name}")
    return sink.getvalue()


class HubServer:
    """Files by path, and the answers about their data sets."""

    def __init__(self) -> None:
        self.url = ""
        self.files = {"/eval_bundle.zip": core_bundle()}
        for number, data_set in enumerate(DATA_SETS):
            for part in range(2 if data_set.task == "smoltalk" else 1):
                path = f"{data_set.place}/{part:04d}.parquet"
                self.files[address(data_set.repo, path)] = parquet(data_set.repo, number + part + 1)
        self.answers: dict[str, Answer] = {}  # about data sets, instead of the true ones
        self.token: str | None = None  # what opens private and gated data sets
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.missing: set[str] = set()
        self.busy: list[str] = []  # Retry-After of the next answers, all of them status 429
        self.elsewhere: str | None = None  # address of the host that has the bytes
        self.asked: list[tuple[str, str | None]] = []

    @property
    def fetched(self) -> set[str]:
        """Return the paths of files that were asked for."""
        return {path for path, _ in self.asked if not path.startswith("/api/")}

    def answer(self, target: str, authorization: str | None) -> Answer:
        """Return status, headers and body for a path with its query."""
        path = urlsplit(target).path
        self.asked.append((path, authorization))
        if self.busy:
            return 429, {"Retry-After": self.busy.pop(0)}, b""
        repo = "/".join(path.removeprefix("/api").split("/")[2:4])
        token = (authorization or "").removeprefix("Bearer ") or None
        if token not in (None, self.token):
            return _refused(401, "", "Invalid credentials in Authorization header")
        if repo in self.missing or (repo in self.private and token is None):
            return _refused(401, "RepoNotFound", "Repository not found")
        if path.startswith("/api/"):
            return self.answers.get(repo) or self._listing(repo, path.partition("/revision/")[2])
        if repo in self.gated and token is None:
            return _refused(401, "GatedRepo", f"Access to dataset {repo} is restricted.")
        if path not in self.files:
            return _refused(404, "EntryNotFound", "Entry not found")
        data = self.files[path]
        about = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if "/resolve/" in path:
            about["X-Repo-Commit"] = COMMIT
        if "/resolve/" in path and self.elsewhere:
            return 302, {**about, "X-Linked-Size": str(len(data)), "Location": self.elsewhere + path}, b""
        return 200, about, data

    def _listing(self, repo: str, revision: str) -> Answer:
        if unquote(revision) != REVISION:
            return _refused(404, "RevisionNotFound", f"Invalid rev id: {unquote(revision)}")
        folder = address(repo, "")
        siblings = [
            {"rfilename": name.removeprefix(folder), "size": len(data), "blobId": "0" * 40,
             "lfs": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}}
            for name, data in reversed(self.files.items())
            if name.startswith(folder)
        ]  # fmt: skip
        return 200, {}, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode()


def without_hub_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what the environment or a login of whoever runs the tests sets for the hub."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def address(repo: str, path: str) -> str:
    """Return where the hub keeps the bytes of a data set's file."""
    return f"/datasets/{repo}/resolve/{COMMIT}/{path}"


@contextmanager
def serving(hub: HubServer) -> Iterator[HubServer]:
    """Let a hub be asked at `hub.url` while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._say(body=False)

        def do_GET(self) -> None:
            self._say(body=True)

        def _say(self, *, body: bool) -> None:
            status, headers, data = hub.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with loopback_server(Handler) as hub.url:
        yield hub


def _refused(status: int, code: str, message: str) -> Answer:
    return status, {"X-Error-Code": code, "X-Error-Message": message}, b""
