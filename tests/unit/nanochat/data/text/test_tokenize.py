from __future__ import annotations

import json
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.config import ShardConfig, TokenizeConfig, TokenizerConfig, ToyWorldConfig
from nanochat.data.sources.corpus import download_shard
from nanochat.data.text import tokenize as shard_encoding
from nanochat.data.text.left_out import write_left_out
from nanochat.data.text.token_shards import TokenShard
from nanochat.data.text.tokenize import read_texts, tokenize_shard
from nanochat.errors import DataError, Interrupted
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.tokenizer.train import train_tokenizer


class Heard:
    """A tracker that remembers."""

    def __init__(self):
        self.steps = []

    def log(self, metrics, *, step, total_steps):
        assert metrics["throughput/documents_per_s"] >= 0
        self.steps.append((step, total_steps))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two generated text shards as the download stage leaves them, and a tokenizer trained on them."""
    root = tmp_path_factory.mktemp("made")
    toy = ToyWorldConfig(documents_per_shard=2100)
    for i in range(2):
        (root / "text" / str(i)).mkdir(parents=True)
        config = ShardConfig(name=f"shard_{i}", index=i, toy=toy)
        download_shard(config, {}, root / "text" / str(i), Runtime())
    (root / "tokenizer").mkdir()
    config = TokenizerConfig(vocab_size=400, train_shards=2)
    train_tokenizer(config, {"shards": root / "text"}, root / "tokenizer", Runtime())
    return root


def encode(made, out, shard=0, runtime=None):
    inputs = {"shard": made / "text" / str(shard), "tokenizer": made / "tokenizer"}
    return tokenize_shard(TokenizeConfig(), inputs, out, runtime or Runtime())


def test_documents_characters_and_bytes_in_are_those_out_through_both_stages(made, tmp_path):
    tokenizer = Tokenizer.load(made / "tokenizer")
    for i in range(2):
        stats = encode(made, tmp_path / str(i), i)
        counted = json.loads((made / "text" / str(i) / "stats.json").read_text())
        assert {name: stats[name] for name in counted} == counted
        shard = TokenShard.open(tmp_path / str(i))
        shard.verify()
        texts = [text for part in read_texts(made / "text" / str(i) / "text.parquet") for text in part]
        assert [tokenizer.decode(ids[1:]) for ids in shard] == [text.decode() for text in texts]
        assert shard.n_tokens == stats["tokens"] == sum(len(ids) for ids in shard)
        assert int(tokenizer.token_bytes()[shard.tokens].sum()) == counted["bytes"]


def test_a_process_of_its_own_writes_the_same_bytes_and_tells_its_progress(made, tmp_path, monkeypatch):
    encode(made, tmp_path / "here")
    monkeypatch.setattr(shard_encoding, "_OWN_PROCESS_BYTES", 0)
    encode(made, tmp_path / "there", runtime=Runtime(tracker=(heard := Heard())))
    for name in ("tokens.bin", "stats.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert heard.steps == [(0, 2100), (1024, 2100), (2048, 2100), (2100, 2100)]


@pytest.mark.parametrize("own_process_bytes", [0, 1 << 40])
def test_documents_that_are_left_out_are_counted_and_nothing_else_is_lost(
    own_process_bytes, made, tmp_path, monkeypatch
):
    monkeypatch.setattr(shard_encoding, "_OWN_PROCESS_BYTES", own_process_bytes)
    numbers = [0, 1023, 1024, 2099]
    (tmp_path / "found").mkdir()
    write_left_out(tmp_path / "found", np.array(numbers))
    text = made / "text" / "0"
    inputs = {"shard": text, "tokenizer": made / "tokenizer", "contamination": tmp_path / "found"}
    stats = tokenize_shard(TokenizeConfig(), inputs, tmp_path / "out", Runtime())
    counted = json.loads((text / "stats.json").read_text())
    assert stats["dropped_documents"] == 4
    assert {name: stats[name] + stats[f"dropped_{name}"] for name in counted} == counted
    assert {"documents", "dropped_bytes"} < set(json.loads((tmp_path / "out" / "stats.json").read_text()))
    texts = [text for part in read_texts(text / "text.parquet") for text in part]
    tokenizer = Tokenizer.load(made / "tokenizer")
    kept = [tokenizer.decode(ids[1:]) for ids in TokenShard.open(tmp_path / "out")]
    assert kept == [text.decode() for i, text in enumerate(texts) if i not in numbers]


@pytest.mark.parametrize("own_process_bytes", [0, 1 << 40])
def test_a_stop_ends_the_encoding(own_process_bytes, made, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_encoding, "_OWN_PROCESS_BYTES", own_process_bytes)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        encode(made, tmp_path / "out", runtime=Runtime(stop=stop))


def test_an_error_in_the_process_arrives_as_it_was_raised(made, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_encoding, "_OWN_PROCESS_BYTES", 0)
    inputs = {"shard": made / "text" / "0", "tokenizer": tmp_path}
    with pytest.raises(DataError, match="holds no tokenizer"):
        tokenize_shard(TokenizeConfig(), inputs, tmp_path / "out", Runtime())


def test_text_that_changed_after_its_download_is_noticed(made, tmp_path):
    shard = tmp_path / "shard_7"
    shard.mkdir()
    table = pq.read_table(made / "text" / "0" / "text.parquet")
    pq.write_table(table.slice(1), shard / "text.parquet")
    (shard / "stats.json").write_text((made / "text" / "0" / "stats.json").read_text())
    inputs = {"shard": shard, "tokenizer": made / "tokenizer"}
    with pytest.raises(
        DataError, match="shard_7: 2099 documents went into the tokens, but the text has 2100"
    ):
        tokenize_shard(TokenizeConfig(), inputs, tmp_path / "out", Runtime())


def test_another_format_is_refused(made, tmp_path):
    with pytest.raises(DataError, match="this code writes 2"):
        tokenize_shard(TokenizeConfig(format_version=1), {}, tmp_path, Runtime())


def test_texts_come_in_order_and_in_bounded_lists_and_a_null_is_empty(tmp_path):
    texts = [f"text {i}" for i in range(2500)]
    pq.write_table(pa.table({"text": [*texts, None]}), tmp_path / "text.parquet", row_group_size=700)
    lists = list(read_texts(tmp_path / "text.parquet"))
    assert max(map(len, lists)) <= 1024
    assert [text.decode() for part in lists for text in part] == [*texts, ""]


def test_real_documents_round_trip(shared_data, made, tmp_path):
    table = pq.read_table(shared_data / "pretrain" / "shard_00000.parquet").slice(0, 150)
    (tmp_path / "real").mkdir()
    pq.write_table(table, tmp_path / "real" / "text.parquet")
    inputs = {"shard": tmp_path / "real", "tokenizer": made / "tokenizer"}
    stats = tokenize_shard(TokenizeConfig(), inputs, tmp_path / "out", Runtime())
    texts = table["text"].to_pylist()
    assert stats["bytes"] == sum(len(text.encode()) for text in texts)
    tokenizer = Tokenizer.load(made / "tokenizer")
    assert [tokenizer.decode(ids[1:]) for ids in TokenShard.open(tmp_path / "out")] == texts
