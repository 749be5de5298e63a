"""The stage that trains the tokenizer: count the words of the first shards, then merge bytes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from nanochat.config import TokenizerConfig
from nanochat.errors import ConfigError
from nanochat.runtime import Runtime
from nanochat.tokenizer.bpe_training import train_ranks
from nanochat.tokenizer.tokenizer import SPECIAL_NAMES, Tokenizer
from nanochat.tokenizer.word_counts import count_words

log = logging.getLogger(__name__)


def train_tokenizer(
    config: TokenizerConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, float | int]:
    """Train on `inputs["shards"]` (one folder with `text.parquet` per shard) and save into `out`."""
    shards = sorted(inputs["shards"].glob("*/text.parquet"))[: config.train_shards]
    counts = count_words(shards, doc_cap=config.doc_cap, max_chars=config.max_chars)
    runtime.raise_if_stopped()
    frequent = counts.words.filter(pl.col("count") >= config.min_count)
    log.info(
        "counted %d words, %d occur at least %d times", len(counts.words), len(frequent), config.min_count
    )
    if frequent.is_empty():
        raise ConfigError(
            f"no word of {counts.characters} characters occurs {config.min_count} times",
            hint="lower tokenizer.min_count or read more text",
        )
    ranks = train_ranks(frequent.iter_rows(), config.vocab_size - len(SPECIAL_NAMES))
    tokenizer = Tokenizer.from_ranks(ranks)
    training = {
        "shards": len(shards),
        "documents": counts.documents,
        "characters": counts.characters,
        "words": len(counts.words),
        "frequent_words": len(frequent),
    }
    tokenizer.save(out, training)
    return {**training, "vocab_size": tokenizer.vocab_size}
