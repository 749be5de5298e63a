from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import polars as pl
import pytest

from nanochat.config import TokenizerConfig
from nanochat.errors import ConfigError, DataError
from nanochat.runtime import Runtime
from nanochat.tokenizer.bpe_training import train_ranks
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.tokenizer.train import train_tokenizer
from nanochat.tokenizer.word_counts import count_words

NASTY = ["tab\there", "▁▁ unk ▅ <unk>", 'say "the"', "nul\0nul", "<|bos|> <|bos|>", "\r\n\r\n", "😀😀 é̃"]


def _words(rng: random.Random) -> str:
    letters = "abcdefghij"
    return "".join(rng.choices(letters, weights=range(1, 11), k=rng.randint(1, 8)))


def _write_shards(folder, n_shards=2, documents=40):
    rng = random.Random(5)
    for shard in range(n_shards):
        texts = [
            " ".join(_words(rng) for _ in range(60)) + "\n" + rng.choice(NASTY) for _ in range(documents)
        ]
        target = folder / f"shard_{shard:05d}"
        target.mkdir(parents=True)
        pl.DataFrame({"text": texts}).write_parquet(target / "text.parquet")
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return _write_shards(tmp_path_factory.mktemp("shards"))


def _train(shards, out, **config):
    out.mkdir(parents=True, exist_ok=True)
    values = {"vocab_size": 500, "min_count": 1} | config
    return train_tokenizer(TokenizerConfig(**values), {"shards": shards}, out, Runtime())


def test_vocabulary_has_the_asked_size_with_bytes_first_and_specials_last(shards, tmp_path):
    metrics = _train(shards, tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert metrics["vocab_size"] == tokenizer.vocab_size == 500
    assert [tokenizer.ranks[bytes([b])] for b in range(256)] == list(range(256))
    assert tokenizer.special("bos") == 491
    assert tokenizer.special("output_end") == 499


def test_same_text_gives_the_same_bytes(shards, tmp_path):
    _train(shards, tmp_path / "a")
    _train(shards, tmp_path / "b")
    for name in ("tokenizer.model", "tokenizer.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_number_of_threads_changes_nothing(shards, tmp_path):
    config = TokenizerConfig(vocab_size=500, min_count=1, max_chars=20_000)
    code = (
        "import sys; from pathlib import Path; from nanochat.config import TokenizerConfig;"
        "from nanochat.runtime import Runtime; from nanochat.tokenizer.train import train_tokenizer;"
        "config = TokenizerConfig.model_validate_json(sys.argv[1]);"
        "train_tokenizer(config, {'shards': Path(sys.argv[2])}, Path(sys.argv[3]), Runtime())"
    )
    for threads in ("1", "5"):
        (tmp_path / threads).mkdir()
        arguments = [config.model_dump_json(), str(shards), str(tmp_path / threads)]
        environment = {**os.environ, "POLARS_MAX_THREADS": threads}
        subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True)
    for name in ("tokenizer.model", "tokenizer.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "5" / name).read_bytes()


def test_the_first_merge_joins_the_most_frequent_pair(tmp_path):
    target = tmp_path / "shards/shard_00000"
    target.mkdir(parents=True)
    pl.DataFrame({"text": ["xy xyz xy wxy zq zqa"] * 3}).write_parquet(target / "text.parquet")
    counts = count_words([target / "text.parquet"], doc_cap=100, max_chars=1000)
    ranks = train_ranks(counts.words.iter_rows(), 258)
    assert ranks[b"xy"] == 256


def test_too_large_vocabulary_names_the_maximum_which_then_works(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"supports (\d+) tokens") as caught:
        _train(shards, tmp_path / "a", vocab_size=65536)
    supported = int(str(caught.value).split()[3])
    _train(shards, tmp_path / "b", vocab_size=supported + 9)
    with pytest.raises(ConfigError, match=f"supports {supported} tokens"):
        _train(shards, tmp_path / "c", vocab_size=supported + 10)


def test_empty_corpus_is_a_data_error(tmp_path):
    target = tmp_path / "shards/shard_00000"
    target.mkdir(parents=True)
    pl.DataFrame({"text": ["", ""]}).write_parquet(target / "text.parquet")
    with pytest.raises(DataError, match="holds no text"):
        _train(tmp_path / "shards", tmp_path / "out")
    with pytest.raises(DataError, match="0 files"):
        _train(tmp_path / "nothing", tmp_path / "out")


def test_words_below_min_count_are_left_out(shards, tmp_path):
    all_words = _train(shards, tmp_path / "a")
    frequent = _train(shards, tmp_path / "b", min_count=3, vocab_size=300)
    assert frequent["words"] == all_words["words"] == all_words["frequent_words"]
    assert 0 < frequent["frequent_words"] < all_words["frequent_words"]
    with pytest.raises(ConfigError, match="occurs 1000000 times"):
        _train(shards, tmp_path / "c", min_count=1_000_000)


def test_only_the_first_shards_are_read(shards, tmp_path):
    assert _train(shards, tmp_path / "a", train_shards=1, vocab_size=400)["documents"] == 40
    assert json.loads((tmp_path / "a/tokenizer.json").read_text())["training"]["shards"] == 1
