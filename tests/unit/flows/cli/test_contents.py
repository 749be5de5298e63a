from __future__ import annotations

import pytest

from flows.cli.contents import contents
from flows.cli.record_tables import conversation_text, record_text
from flows.store import Store
from nanochat.config import ChatDataConfig
from nanochat.data.chat.chat_tokens import Rendered, write_chat_tokens
from nanochat.data.text.token_shards import write_token_shard
from nanochat.errors import Damaged
from nanochat.evals.contamination.overlap import FILE_NAME, Overlap, TaskOverlap
from nanochat.tokenizer.tokenizer import Tokenizer

TEXTS = ["naïve", "", *(f"document {i}" for i in range(10)), "x" * 100]


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def commit(store, stage, folder, inputs):
    key = {"tokenizer": "a", "tokenize": "b", "render": "d"}[stage] * 64
    return store.commit(stage=stage, node=f"{stage}/x", key=key, payload={}, folder=folder, inputs=inputs)


@pytest.fixture
def record(store, tmp_path):
    """A token shard of a tokenizer that knows bytes only."""
    tokenizer = Tokenizer.from_ranks({bytes([i]): i for i in range(256)})
    for name in ("tokenizer", "tokens"):
        (tmp_path / name).mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    write_token_shard(tmp_path / "tokens", [[text.encode() for text in TEXTS]], tokenizer)
    made_with = commit(store, "tokenizer", tmp_path / "tokenizer", {})
    line = {"stage": made_with.stage, "key": made_with.key, "digest": made_with.digest}
    return commit(store, "tokenize", tmp_path / "tokens", {"tokenizer": line})


def test_a_token_shard_is_counted_and_decoded(store, record):
    found = contents(store, record)
    size = sum(len(text.encode()) for text in TEXTS)
    assert found["format"].startswith("uint16, vocabulary of 265 (")
    assert (found["documents"], found["tokens"], found["text_bytes"]) == (13, size + 13, size)
    lengths = ("shortest_document_tokens", "median_document_tokens", "longest_document_tokens")
    assert [found[name] for name in lengths] == [1, 11.0, 101]
    assert found["bytes_per_token"] == 1.0
    assert found["distinct_tokens"] == len({byte for text in TEXTS for byte in text.encode()}) + 1
    assert found["samples"] == [
        {"document": 0, "tokens": 7, "text": "naïve", "whole": True},
        {"document": 6, "tokens": 11, "text": "document 4", "whole": True},
        {"document": 12, "tokens": 101, "text": "x" * 64, "whole": False},
    ]


def test_a_person_reads_numbers_and_samples(store, record):
    lines = record_text(record, contents(store, record)).splitlines()
    shown = "\n".join(lines[lines.index("contents") :])
    for text in ("documents                13\n", "1.000\n", 'document 0, 7 tokens\n    "naïve"\n', 'x" …'):
        assert text in shown


def test_without_its_tokenizer_a_shard_is_counted_only(store, record):
    store.storage.delete(f"records/tokenizer/{'a' * 64}.json")
    found = contents(store, record)
    assert found["tokens"] == sum(len(text.encode()) + 1 for text in TEXTS)
    assert "samples" not in found


def test_damaged_tokens_are_not_described(store, record):
    (file,) = (f for f in record.files if f.path == "tokens.bin")
    path = store.blob_path(file)
    raw = bytearray(path.read_bytes())
    raw[130] ^= 1
    path.chmod(0o600)
    path.write_bytes(raw)
    with pytest.raises(Damaged, match=r"tokens\.bin\) is damaged"):
        contents(store, record)


def test_an_empty_shard_and_other_stages_have_less_to_tell(store, record, tmp_path):
    write_token_shard(tmp_path / "empty", [], Tokenizer.from_ranks({bytes([i]): i for i in range(256)}))
    again = store.commit(
        stage="tokenize",
        node="tokenize/y",
        key="c" * 64,
        payload={},
        folder=tmp_path / "empty",
        inputs=record.inputs,
    )
    found = contents(store, again)
    assert (found["documents"], found["tokens"], found["samples"]) == (0, 0, [])
    assert contents(store, store.resolve("tokenizer")) is None


def test_an_overlap_with_the_tasks_is_told_task_by_task(store, tmp_path):
    (tmp_path / "found").mkdir()
    Overlap(
        ngram_words=13,
        shards=1,
        documents=123,
        overlapping_documents=2,
        tasks={"mmlu": TaskOverlap(items=63, too_short=13, overlapping=(3, 7))},
        core={},
    ).write(tmp_path / "found" / FILE_NAME)
    made = store.commit(
        stage="contamination",
        node="contamination/x",
        key="d" * 64,
        payload={},
        folder=tmp_path / "found",
        inputs={},
    )
    shown = record_text(made, contents(store, made)).splitlines()
    assert "  documents                123" in shown
    assert "  mmlu                     2 of 50 judged items overlap (4.00 %), 13 too short" in shown


@pytest.fixture
def rendered(store, record, tmp_path):
    """Two training conversations, the first with a call of the calculator, and one that validates."""
    tokenizer = Tokenizer.from_ranks({bytes([i]): i for i in range(256)})
    answer = [
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
        {"type": "text", "text": "two\nof é"},
    ]
    talks = [
        [{"role": "user", "content": "sum?"}, {"role": "assistant", "content": said}] for said in (answer, "")
    ]
    for part, chosen, most in (("train", talks, 99), ("val", talks[1:], 4)):
        config = ChatDataConfig(max_tokens=most)
        rows = [Rendered.of(talk, tokenizer, config) for talk in chosen]
        write_chat_tokens(tmp_path / "chat" / part, rows, tokenizer)
    return commit(store, "render", tmp_path / "chat", {"tokenizer": record.inputs["tokenizer"]})


def test_a_conversation_is_told_in_pieces_by_what_is_trained(store, rendered):
    found = contents(store, rendered)
    assert (found["train_conversations"], found["val_conversations"]) == (2, 1)
    assert (found["train_truncated"], found["val_truncated"]) == (0, 1)
    assert [(piece["target"], piece["text"]) for piece in found["conversations"][0]["pieces"]] == [
        (False, "<|bos|><|user_start|>sum?<|user_end|><|assistant_start|>"),
        (True, "<|python_start|>1+1<|python_end|>"),
        (False, "<|output_start|>2<|output_end|>"),
        (True, "two\nof é<|assistant_end|>"),
    ]
    assert found["train_targets"] == 5 + 9 + 1 + 1  # in bytes, and the special tokens that are targets


def test_a_person_sees_what_is_trained_in_colour_and_without(store, rendered):
    sample = contents(store, rendered)["conversations"][0]
    text = conversation_text(sample)
    assert text.plain.splitlines()[-4:] == [
        "+ <|python_start|>1+1<|python_end|>",
        "  <|output_start|>2<|output_end|>",
        "+ two",
        "+ of é<|assistant_end|>",
    ]
    greens = [text.plain[span.start : span.end] for span in text.spans if span.style == "green"]
    assert greens == ["\n+ <|python_start|>1+1<|python_end|>", "\n+ two", "\n+ of é<|assistant_end|>"]
    assert "python_start" not in record_text(rendered, contents(store, rendered))
