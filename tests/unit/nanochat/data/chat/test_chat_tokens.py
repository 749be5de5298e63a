"""Rendered conversations on disk: what is in them, what validates, and how a damaged file is reported."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.config import ChatDataConfig, MixtureEntry
from nanochat.data.chat.chat_tokens import MASK_FILE, ChatTokens, Rendered, render_chat, write_chat_tokens
from nanochat.data.chat.mixture import chat_data
from nanochat.errors import DataError, Interrupted
from nanochat.runtime import Runtime
from nanochat.tokenizer.chat_format import render
from nanochat.tokenizer.tokenizer import Tokenizer

TALK = (MixtureEntry(task="talk"),)
quick = settings(max_examples=30, deadline=None)


def talk(question: str, answer: str):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write(folder, conversations, tokenizer, most=99):
    config = ChatDataConfig(max_tokens=most)
    return write_chat_tokens(folder, [Rendered.of(c, tokenizer, config) for c in conversations], tokenizer)


@pytest.fixture
def root(tmp_path):
    """A data root with sixty conversations, and a tokenizer of bytes beside it."""
    (tmp_path / "tasks/conversations").mkdir(parents=True)
    with (tmp_path / "tasks/conversations/talk.jsonl").open("w", encoding="utf-8") as file:
        for i in range(60):
            file.write(json.dumps({"messages": talk("né" * (i % 4), f"answer {i}")}) + "\n")
    (tmp_path / "tokenizer").mkdir()
    Tokenizer.from_ranks({bytes([i]): i for i in range(256)}).save(tmp_path / "tokenizer")
    return tmp_path


@quick
@given(
    pairs=st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=9),
    most=st.integers(1, 25),
)
def test_what_is_read_is_what_was_rendered(pairs, most, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    stats = write(folder, [talk(*pair) for pair in pairs], tokenizer, most)
    chat = ChatTokens.open(folder)
    rendered = [render(tokenizer, talk(*pair), most) for pair in pairs]
    assert [chat.shard.tokens[chat.span(i)].tolist() for i in range(len(chat))] == [r[0] for r in rendered]
    assert [chat.mask[chat.span(i)].tolist() for i in range(len(chat))] == [
        [bool(m) for m in r[1]] for r in rendered
    ]
    assert stats == json.loads((folder / "stats.json").read_text())
    whole = [render(tokenizer, talk(*pair), None)[0] for pair in pairs]
    assert stats["truncated"] == chat.truncated == sum(len(ids) > most for ids in whole)
    assert stats["targets"] == sum(sum(mask) for _, mask in rendered)


def test_the_stage_writes_both_parts_and_the_same_bytes_again(root, tmp_path):
    config = ChatDataConfig(mixture=TALK, max_tokens=12)
    inputs = {"tokenizer": root / "tokenizer", "tasks": root / "tasks"}
    for name in ("one", "two"):
        metrics = render_chat(config, inputs, tmp_path / name, Runtime())
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert (metrics["train/documents"], metrics["val/documents"]) == (59, 1)
    assert metrics["train/truncated"] > 0


def test_a_stop_ends_the_rendering(root, tmp_path):
    runtime = Runtime()
    runtime.stop.set()
    inputs = {"tokenizer": root / "tokenizer", "tasks": root / "tasks"}
    with pytest.raises(Interrupted):
        render_chat(ChatDataConfig(mixture=TALK), inputs, tmp_path / "out", runtime)


@pytest.mark.parametrize("change", ["short", "missing"])
def test_a_mask_that_does_not_fit_its_tokens_is_named(change, tokenizer, tmp_path):
    write(tmp_path, [talk("question", "answer")], tokenizer)
    path = tmp_path / MASK_FILE
    if change == "short":
        np.fromfile(path, np.uint8)[:-1].tofile(path)
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"mask\.bin: \d bytes do not mark 19 tokens"):
        ChatTokens.open(tmp_path)


def test_conversations_of_another_vocabulary_are_refused(make_tokenizer, tmp_path):
    write(tmp_path, [talk("a", "b")], make_tokenizer(300))
    with pytest.raises(DataError, match="are of vocabulary"):
        ChatTokens.open(tmp_path, "0" * 64)


def test_a_named_validation_set_leaves_the_mixture_whole(root):
    config = ChatDataConfig(mixture=TALK, validation=(MixtureEntry(task="talk", rows=7),))
    training, validation = chat_data(root / "tasks", config)
    assert (len(training), len(validation)) == (60, 7)


def test_without_one_the_last_rows_validate_and_do_not_train(root):
    whole, _ = chat_data(root / "tasks", ChatDataConfig(mixture=TALK, validation=TALK))
    training, validation = chat_data(root / "tasks", ChatDataConfig(mixture=TALK))
    assert [*training, *validation] == list(whole)
    assert len(validation) == 1
