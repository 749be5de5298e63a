"""The public data sets, served by a hub of our own on this machine in the same layout."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat import recipes
from nanochat.config import MixtureEntry, SftConfig, TasksConfig
from nanochat.data.chat.task_files import TASK_FILES
from nanochat.data.chat.tasks import load_task, mixture
from nanochat.data.sources import transfer
from nanochat.data.sources.chat_data import download_tasks, resolve_tasks
from nanochat.data.sources.hub import DATA_SETS, published_rows
from nanochat.data.sources.required import require_tasks
from nanochat.errors import ConfigError, DataError
from nanochat.runtime import Runtime
from nanochat.tracking import MemoryTracker

REVISION = "refs%2Fconvert%2Fparquet"
CHOICES = {"text": ["one", "two"], "label": ["A", "B"]}
ROWS = {
    "ai2_arc": {"id": "x", "question": "Which?", "choices": CHOICES, "answerKey": "B"},
    "mmlu": {"question": "Which?", "subject": "s", "choices": ["a", "b", "c", "d"], "answer": 3},
    "gsm8k": {"question": "2+3?", "answer": "<<2+3=5>>5\n#### 5"},
    "openai_humaneval": {
        "task_id": "0", "prompt": "def f():\n", "canonical_solution": "    return 1\n", "test": "x",
        "entry_point": "f",
    },
    "smol-smoltalk": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        "source": "s",
    },
}  # fmt: skip


def parquet(repo, rows):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([ROWS[repo.split("/")[1]]] * rows), sink)
    return sink.getvalue()


def bundle(
    names=("core.yaml", "eval_meta_data.csv", "eval_data/world/facts.jsonl", "gpt2.csv", "../../evil"),
):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(f"eval_bundle/{name}", f"content of {name}")
    return sink.getvalue()


class Hub:
    """Files by path, and listings made from them."""

    def __init__(self):
        self.files = {"/eval_bundle.zip": bundle()}
        for number, data_set in enumerate(DATA_SETS):
            for part in range(2 if data_set.task == "smoltalk" else 1):
                path = f"/datasets/{data_set.repo}/resolve/{REVISION}/{data_set.place}/{part:04d}.parquet"
                self.files[path] = parquet(data_set.repo, number + part + 1)
        self.answers = {}  # listings that a test replaces
        self.fetched = []

    def answer(self, path):
        if path in self.answers:
            return self.answers[path]
        if path.startswith("/api/datasets/"):
            repo, _, rest = path.removeprefix("/api/datasets/").partition("/tree/")
            revision, _, place = rest.partition("/")
            folder = f"/datasets/{repo}/resolve/{revision}/"
            return json.dumps(
                [
                    {"type": "file", "path": name.removeprefix(folder), "size": len(data),
                     "lfs": {"oid": hashlib.sha256(data).hexdigest()}}
                    for name, data in reversed(self.files.items())
                    if name.startswith(f"{folder}{place}/")
                ]
            ).encode()  # fmt: skip
        self.fetched.append(path)
        return self.files.get(path)


@pytest.fixture
def hub(monkeypatch):
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._say(body=False)

        def do_GET(self):
            self._say(body=True)

        def _say(self, *, body):
            data = state.answer(self.path)
            if data is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setattr(transfer, "_ATTEMPTS", 1)
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def config_of(hub, **changes):
    return resolve_tasks(
        TasksConfig(source=f"hub:{hub.url}", toy=None, core_url=f"{hub.url}/eval_bundle.zip", **changes)
    )


def test_everything_arrives_in_our_layout_and_every_task_of_the_recipes_loads(hub, tmp_path):
    out = tmp_path / "out"
    metrics = download_tasks(config_of(hub), {}, out, Runtime(workers=3))
    assert metrics["files"] == len(DATA_SETS) + 3
    for number, data_set in enumerate(DATA_SETS):
        in_two_parts = (number + 2) * (data_set.task == "smoltalk")
        assert len(load_task(out, data_set.task, data_set.split)) == number + 1 + in_two_parts
    d20 = recipes.find("d20")
    for stage in (d20.midtrain, d20.sft):
        assert mixture(out, stage.mixture, 42)[0]
        assert mixture(out, stage.validation, 42)[0]
    assert sorted(str(p.relative_to(out / "core")) for p in (out / "core").rglob("*.*")) == [
        "core.yaml",
        "eval_data/world/facts.jsonl",
        "eval_meta_data.csv",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_words_of_the_spelling_tasks_come_with_the_rest_where_they_are_asked_for(hub, tmp_path):
    hub.files["/lists/words.txt"] = b"lamp\r\nzebra\r\n"
    config = config_of(hub, words_url=f"{hub.url}/lists/words.txt")
    tracker = MemoryTracker()
    download_tasks(config, {}, tmp_path / "out", Runtime(tracker=tracker))
    assert [step for step, _ in tracker.metrics] == list(range(1, len(DATA_SETS) + 3))
    assert tracker.total_steps == len(DATA_SETS) + 2
    assert "lamp" in load_task(tmp_path / "out", "spelling", "test").conversation(0)[0]["content"]
    hub.files["/lists/words.txt"] = b"<p>Moved</p>"
    with pytest.raises(DataError, match="not a list of words") as caught:
        download_tasks(config, {}, tmp_path / "again", Runtime())
    assert str(caught.value).startswith(f"{hub.url}/lists/words.txt")
    assert "tasks.words_url" in caught.value.hint


def test_conversations_about_identity_come_with_the_rest_where_they_are_asked_for(hub, tmp_path):
    turns = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A small model."}]
    hub.files["/who/i_am.jsonl"] = (json.dumps(turns) + "\n").encode() * 3
    config = config_of(hub, identity_url=f"{hub.url}/who/i_am.jsonl")
    require_tasks(config, SftConfig(mixture=(MixtureEntry(task="identity"),)))
    assert [file.version for file in config.files if file.path == "conversations/identity.jsonl"] == [
        "i_am.jsonl"
    ]
    download_tasks(config, {}, tmp_path / "out", Runtime())
    rows = mixture(tmp_path / "out", (MixtureEntry(task="identity", repeat=2, shuffle=False),), 42)
    assert list(rows) == [turns] * 6
    hub.files["/who/i_am.jsonl"] += b'[{"role": "user"}]'
    with pytest.raises(DataError, match=r"i_am\.jsonl, line 4: roles user do not alternate") as caught:
        download_tasks(config, {}, tmp_path / "again", Runtime())
    assert str(caught.value).startswith(hub.url)


def test_a_later_attempt_fetches_only_what_is_missing(hub, tmp_path):
    hub.files["/eval_bundle.zip"] = b"no zip file"
    runtime = Runtime(partial=tmp_path / "partial")
    with pytest.raises(DataError, match=r"eval_bundle\.zip: not a readable zip file") as caught:
        download_tasks(config_of(hub), {}, tmp_path / "first", runtime)
    assert caught.value.hint == "is tasks.core_url right?"
    hub.files["/eval_bundle.zip"] = bundle()
    hub.fetched.clear()
    download_tasks(config_of(hub), {}, tmp_path / "second", runtime)
    assert set(hub.fetched) == {"/eval_bundle.zip"}


def test_a_plan_asks_nobody_and_another_revision_is_another_key():
    plain = resolve_tasks(TasksConfig(source="hub", toy=None))
    mirrored = resolve_tasks(TasksConfig(source="hub:https://mirror.invalid/", toy=None))
    pinned = resolve_tasks(TasksConfig(source="hub", toy=None, revision="0123abc"))
    assert plain.identity() == mirrored.identity() != pinned.identity()
    assert {file.path for file in plain.files} == {d.path for d in DATA_SETS} | {"core"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>", "not a listing of files"),
        (b'{"error": "nope"}', "not a listing of files"),
        (b"[]", "no parquet files"),
        (None, "cannot be read"),
    ],
)
def test_a_hub_that_lists_nothing_is_told_by_its_address(hub, tmp_path, answer, message):
    path = f"/api/datasets/openai/gsm8k/tree/{REVISION}/main/test"
    hub.answers[path] = answer
    with pytest.raises(DataError, match=message) as caught:
        download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())
    assert f"{hub.url}{path}" in str(caught.value)
    assert caught.value.hint


def test_bytes_other_than_those_listed_are_refused(hub, tmp_path):
    path = f"/datasets/openai/gsm8k/resolve/{REVISION}/main/test/0000.parquet"
    listed = hub.answer(f"/api/datasets/openai/gsm8k/tree/{REVISION}/main/test")
    hub.answers[f"/api/datasets/openai/gsm8k/tree/{REVISION}/main/test"] = listed
    hub.files[path] = bytes(len(hub.files[path]))
    with pytest.raises(DataError, match="but the hub lists"):
        download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())
    hub.files[path] = b"PAR1 and no more"
    with pytest.raises(DataError, match="has 16 bytes"):
        download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())


def test_a_listed_file_that_is_no_parquet_is_refused(hub, tmp_path):
    hub.files[f"/datasets/openai/gsm8k/resolve/{REVISION}/main/test/0000.parquet"] = b"a page about the file"
    with pytest.raises(DataError, match=r"openai/gsm8k.*not readable parquet"):
        download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())


def test_a_bundle_without_core_is_refused(hub, tmp_path):
    hub.files["/eval_bundle.zip"] = bundle(["readme.txt"])
    with pytest.raises(DataError, match=r"no core\.yaml in it"):
        download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())


def test_addresses_that_cannot_work_are_refused_before_anything_is_fetched():
    with pytest.raises(ConfigError, match="no web address"):
        resolve_tasks(TasksConfig(source="hub:mirror.example", toy=None))
    with pytest.raises(ConfigError, match=r"does not end in \.zip"):
        resolve_tasks(TasksConfig(source="hub", toy=None, core_url="https://example.invalid/core"))


def test_the_data_sets_lie_where_tasks_are_looked_for():
    places = {(task, split): place for task, files in TASK_FILES.items() for split, place in files.items()}
    found = {(d.task, d.split): d.path.removesuffix(".parquet") for d in DATA_SETS}
    assert found.items() >= places.items()
    assert {k: v for k, v in found.items() if k not in places} == {
        ("smoltalk", "train"): "conversations/smoltalk",
        ("test", "train"): "conversations/test",
    }
    assert published_rows("gsm8k", "train") == 7_473
    assert published_rows("mine", "train") is None
