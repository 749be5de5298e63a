"""A user's own file joins the mixtures by one override, whatever the source of the other data is."""

from __future__ import annotations

import json
import os

import pytest

from nanochat import recipes
from nanochat.config import ChatDataConfig, MixtureEntry
from nanochat.data.chat.chat_batches import SftBatches
from nanochat.data.chat.chat_tokens import ChatTokens, has_own_rows, render_chat
from nanochat.data.chat.mixture import chat_data
from nanochat.data.sources.chat_data import download_tasks, resolve_tasks
from nanochat.data.sources.required import require_tasks
from nanochat.errors import ConfigError, DataError
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer

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


def test_its_rows_are_never_held_out_and_what_validates_is_the_same_as_without(mine, tmp_path):
    own, without = (downloaded(tmp_path / str(i), *o) for i, o in enumerate(([f"tasks.own={mine}"], [])))
    for seed in range(20):
        training, validation = chat_data(own, ChatDataConfig(seed=seed))
        assert sorted(t for t in questions(training) if t.startswith("own")) == [f"own {i}" for i in range(7)]
        assert list(validation) == list(chat_data(without, ChatDataConfig(seed=seed))[1])


def test_rows_that_validation_names_validate_and_do_not_train(mine, tmp_path):
    root = downloaded(tmp_path, f"tasks.own={mine}")
    asked = (MixtureEntry(task="own/mine", rows=3),)
    training, validation = (questions(part) for part in chat_data(root, ChatDataConfig(validation=asked)))
    rest = [text for text in training if text.startswith("own")]
    assert (len(validation), len(rest)) == (3, 4)
    assert sorted(validation + rest) == [f"own {i}" for i in range(7)]


def test_a_mixture_that_names_it_decides_how_it_is_taken(mine, tmp_path):
    root = downloaded(tmp_path, f"tasks.own={mine}")
    alone = (MixtureEntry(task="own/mine", rows=2, repeat=3),)
    training, _ = chat_data(root, ChatDataConfig(mixture=alone, validation=(MixtureEntry(task="test"),)))
    assert len(training) == 6 and len(set(questions(training))) == 2
    with pytest.raises(DataError, match="only your own conversations, which are not held out"):
        chat_data(root, ChatDataConfig(mixture=alone))


def test_a_mixture_names_an_own_file_that_exists(mine):
    recipe = recipes.find("toy", [*SMALL, f"tasks.own={mine}", "sft.validation=[{task: own/mine}]"])
    require_tasks(resolve_tasks(recipe.tasks), recipe.sft)
    other = recipe.sft.model_copy(update={"validation": (MixtureEntry(task="own/min"),)})
    with pytest.raises(ConfigError, match=r"names 'own/min', but tasks\.own has no min\.jsonl") as caught:
        require_tasks(resolve_tasks(recipe.tasks), other)
    assert caught.value.hint == "did you mean own/mine?"


def test_the_stage_counts_what_becomes_of_own_rows_and_warns(mine, tmp_path):
    mine.write_text("\n".join(line("x" * length) for length in [10] * 30 + [90] * 9 + [300] * 61))
    inputs = {"tasks": downloaded(tmp_path, f"tasks.own={mine}"), "tokenizer": tmp_path / "tokenizer"}
    inputs["tokenizer"].mkdir()
    Tokenizer.from_ranks({bytes([i]): i for i in range(256)}).save(inputs["tokenizer"])
    config = ChatDataConfig(mixture=(MixtureEntry(task="gsm8k"),), max_tokens=95)
    metrics = render_chat(config, inputs, tmp_path / "chat", Runtime())
    assert metrics["rows"]["own/mine"] == {
        "used": 39,
        "cut": 9,  # 90 + 6 tokens: the answer is within, its end is not
        "skipped": 61,
        "held_out": 0,
        "longest": 306,
    }
    assert sum(metrics["rows"]["gsm8k"][part] for part in ("used", "skipped", "held_out")) == 30
    assert metrics["rows"]["gsm8k"]["held_out"] == 1
    _, own, warning = metrics["notes"]
    assert own == (
        "your own: 100 rows: 39 used, 9 of them cut to 95 tokens,"
        " 61 skipped (no answer to train on within 95 tokens), 0 held out"
    )
    assert warning.startswith("warning: 70% of your own rows are cut or skipped: the longest has 306 tokens")
    assert "a larger sequence_len of the model" in warning
    assert has_own_rows(tmp_path / "chat")
    chat = ChatTokens.open(tmp_path / "chat/train")
    assert SftBatches(chat, 7, 0).accounting["skipped"] == sum(
        counts["skipped"] for counts in metrics["rows"].values()
    )


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


@pytest.mark.parametrize("name", ["my #1", "a: b", "100%25", "[draft] *?", "é ü", "it's", "-x", "null"])
def test_a_file_may_have_any_name(name, tmp_path):
    path = tmp_path / f"{name}.jsonl"
    path.write_text(line("own 0"))
    named = (MixtureEntry(task=f"own/{name}"),)
    root = downloaded(tmp_path, f"tasks.own={path}")
    training, validation = chat_data(root, ChatDataConfig(validation=named))
    assert questions(validation) == ["own 0"]
    assert not any(text.startswith("own") for text in questions(training))


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
    with pytest.raises(DataError, match=r"tasks\.own .*nowhere\.jsonl: cannot be read: .* does not exist"):
        resolved(f"tasks.own={tmp_path}/nowhere.jsonl")
    with pytest.raises(ConfigError, match=r"'notes\.txt', which ends in none of \.jsonl, \.parquet"):
        resolved("tasks.own=notes.txt")
    with pytest.raises(ConfigError, match=r"two files named mine"):
        resolved(f"tasks.own=[{mine}, other/mine.parquet]")
