"""The public data sets, served by a hub of our own on this machine in the same layout."""

from __future__ import annotations

import json

import pytest

from nanochat import recipes
from nanochat.config import MixtureEntry, SftConfig, TasksConfig
from nanochat.data.chat.mixture import mixture
from nanochat.data.chat.task_table import TASKS
from nanochat.data.chat.tasks import load_task
from nanochat.data.sources import patience
from nanochat.data.sources.chat_data import download_tasks, resolve_tasks
from nanochat.data.sources.hub import DATA_SETS, published_rows
from nanochat.data.sources.required import require_tasks
from nanochat.errors import ConfigError, DataError, SourceUnavailable
from nanochat.runtime import Runtime
from nanochat.tracking import MemoryTracker
from tests.support.hub_server import (
    COMMIT,
    REVISION,
    HubServer,
    address,
    core_bundle,
    serving,
    without_hub_settings,
)

GSM8K_TEST = address("openai/gsm8k", "main/test/0000.parquet")


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(patience, "_ATTEMPTS", 1)
    without_hub_settings(monkeypatch)
    with serving(HubServer()) as hub:
        yield hub


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
    hub.files["/eval_bundle.zip"] = core_bundle()
    hub.asked.clear()
    download_tasks(config_of(hub), {}, tmp_path / "second", runtime)
    assert hub.fetched == {"/eval_bundle.zip"}


def test_a_plan_asks_nobody_and_another_revision_is_another_key():
    plain = resolve_tasks(TasksConfig(source="hub", toy=None))
    mirrored = resolve_tasks(TasksConfig(source="hub:https://mirror.invalid/", toy=None))
    pinned = resolve_tasks(TasksConfig(source="hub", toy=None, revision="0123abc"))
    assert plain.identity() == mirrored.identity() != pinned.identity()
    assert {file.path for file in plain.files} == {d.path for d in DATA_SETS} | {"core"}


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (200, b"<html>", "not answered with a listing"),
        (200, b'{"error": "nope"}', "not answered with a listing"),
        (200, b'{"id": "openai/gsm8k", "sha": "c0ffee", "siblings": []}', "no parquet files"),
        (404, b"", "cannot be listed"),
        (503, b"", "no answer"),
    ],
)
def test_a_hub_that_lists_nothing_is_told_by_its_address(hub, tmp_path, status, answer, message):
    hub.answers["openai/gsm8k"] = (status, {}, answer)
    with pytest.raises(DataError, match=message) as caught:
        download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())
    assert str(caught.value).startswith(f"{hub.url}/datasets/openai/gsm8k")
    assert isinstance(caught.value, SourceUnavailable) == (status == 503)
    assert caught.value.hint


def test_files_come_from_the_commit_that_was_listed(hub, tmp_path):
    download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())
    assert {path.split("/")[5] for path in hub.fetched if "/resolve/" in path} == {COMMIT}


def test_bytes_other_than_those_listed_are_refused(hub, tmp_path):
    hub.answers["openai/gsm8k"] = hub.answer(f"/api/datasets/openai/gsm8k/revision/{REVISION}", None)
    hub.files[GSM8K_TEST] = bytes(len(hub.files[GSM8K_TEST]))
    with pytest.raises(DataError, match="but the hub lists"):
        download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())
    hub.files[GSM8K_TEST] = b"PAR1 and no more"
    with pytest.raises(DataError, match="has 16 bytes"):
        download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())


def test_a_listed_file_that_is_no_parquet_is_refused(hub, tmp_path):
    hub.files[GSM8K_TEST] = b"a page about the file"
    with pytest.raises(DataError, match=r"openai/gsm8k.*not readable parquet"):
        download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())


def test_a_bundle_without_core_is_refused(hub, tmp_path):
    hub.files["/eval_bundle.zip"] = core_bundle(("readme.txt",))
    with pytest.raises(DataError, match=r"no core\.yaml in it"):
        download_tasks(config_of(hub), {}, tmp_path / "out", Runtime())


def test_addresses_that_cannot_work_are_refused_before_anything_is_fetched():
    with pytest.raises(ConfigError, match="is not a web address"):
        resolve_tasks(TasksConfig(source="hub:mirror.example", toy=None))
    with pytest.raises(ConfigError, match=r"does not end in \.zip"):
        resolve_tasks(TasksConfig(source="hub", toy=None, core_url="https://example.invalid/core"))


def test_the_data_sets_lie_where_tasks_are_looked_for():
    scored = [task for task in TASKS.values() if not task.from_words]
    places = {(task.name, split): part.place for task in scored for split, part in task.splits.items()}
    found = {(d.task, d.split): d.path.removesuffix(".parquet") for d in DATA_SETS}
    assert found.items() >= places.items()
    assert {k: v for k, v in found.items() if k not in places} == {
        ("smoltalk", "train"): "conversations/smoltalk",
        ("test", "train"): "conversations/test",
    }
    assert published_rows("gsm8k", "train") == 7_473
    assert published_rows("mine", "train") is None
