"""A user's own file joins the mixtures by one override, whatever the source of the other data is."""

from __future__ import annotations

import json
import os

import pytest

from nanochat import recipes
from nanochat.config import ChatDataConfig, MixtureEntry
from nanochat.data.chat.chat_tokens import chat_data
from nanochat.data.sources.chat_data import download_tasks, resolve_tasks
from nanochat.errors import ConfigError, DataError
from nanochat.runtime import Runtime

SMALL = ("tasks.toy.questions=30", "tasks.toy.held_out=5")


def line(text):
    return json.dumps(
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]}
    )


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(line(f"own {i}") for i in range(7)))
    return path


def resolved(*overrides):
    return resolve_tasks(recipes.find("toy", [*SMALL, *overrides]).tasks)


def questions(conversations):
    return [conversation[0]["content"] for conversation in conversations]


def downloaded(tmp_path, *overrides):
    download_tasks(resolved(*overrides), {}, tmp_path / "out", Runtime())
    return tmp_path / "out"


def test_one_override_adds_every_line_once_to_what_trains(mine, tmp_path):
    root = downloaded(tmp_path, f"tasks.own={mine}")
    named = (MixtureEntry(task="gsm8k", rows=9),)
    for mixture, rows in ((named, 9), ((), 6 * 30)):
        training, _ = chat_data(root, ChatDataConfig(mixture=mixture, validation=named))
        found = questions(training)
        assert len(found) == rows + 7
        assert sorted(text for text in found if text.startswith("own")) == [f"own {i}" for i in range(7)]


def test_it_is_no_part_of_a_validation_set_of_its_own(mine, tmp_path):
    root = downloaded(tmp_path, f"tasks.own={mine}")
    named = (MixtureEntry(task="test"),)
    _, validation = chat_data(root, ChatDataConfig(mixture=named, validation=named))
    assert not any(text.startswith("own") for text in questions(validation))


def test_several_files_join_whatever_the_source_is(mine, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(line("another"))
    source = tmp_path / "source/conversations"
    source.mkdir(parents=True)
    (source / "talk.jsonl").write_text(line("talk"))
    root = downloaded(tmp_path, f"tasks.source={source.parent}", f"tasks.own=[{mine}, {other}]")
    training, _ = chat_data(root, ChatDataConfig(validation=(MixtureEntry(task="talk"),)))
    assert sorted(questions(training)) == ["another", *(f"own {i}" for i in range(7)), "talk"]
    hub = resolve_tasks(recipes.find("d20", [f"tasks.own={mine}"]).tasks)
    assert [file.path for file in hub.files][-2:] == ["core", "own/mine.jsonl"]


def test_the_content_is_in_the_key_and_the_place_is_not(mine, tmp_path):
    before = resolved(f"tasks.own={mine}")
    assert before.identity() != resolved().identity()
    moved = tmp_path / "elsewhere/mine.jsonl"
    moved.parent.mkdir()
    mine.rename(moved)
    assert resolved(f"tasks.own={moved}").identity() == before.identity()
    os.utime(moved, ns=(1, 1))
    assert resolved(f"tasks.own={moved}").identity() != before.identity()


def test_a_relative_path_is_kept_absolute(mine, monkeypatch):
    monkeypatch.chdir(mine.parent)
    assert resolved("tasks.own=mine.jsonl").own == (f"file://{mine}",)


def test_a_wrong_line_is_named_by_the_users_file_before_anything_trains(mine, tmp_path):
    mine.write_text(mine.read_text() + "\n\n" + json.dumps({"messages": [{"role": "user", "content": 3}]}))
    with pytest.raises(DataError, match=r"/mine\.jsonl, line 9: roles user do not alternate") as caught:
        downloaded(tmp_path, f"tasks.own={mine}")
    assert str(mine) in str(caught.value) and "/out/" not in str(caught.value)
    assert "a line is" in caught.value.hint


def test_names_and_files_that_cannot_be_used_are_refused(mine, tmp_path):
    with pytest.raises(DataError, match=r"tasks\.own .*nowhere\.jsonl: cannot be read: FileNotFoundError"):
        resolved(f"tasks.own={tmp_path}/nowhere.jsonl")
    with pytest.raises(ConfigError, match=r"'notes\.txt', which ends in none of \.jsonl, \.parquet"):
        resolved("tasks.own=notes.txt")
    with pytest.raises(ConfigError, match=r"two files mine\.jsonl"):
        resolved(f"tasks.own=[{mine}, other/mine.jsonl]")
