"""How often each word of a corpus occurs, counted by polars.

The linear-time regex engine of polars lacks the possessive quantifiers and the look-ahead of `split.PATTERN`;
this uses an equivalent pattern after marking the one place where the look-ahead matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nanochat.errors import DataError

_MARK = "\ufdd0"  # a noncharacter; in a text of its own it is left out of the counts
_LINEAR_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}\x{FDD0}]?\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}\x{FDD0}]+[\r\n]*|\s*[\r\n]|\s+"
)


@dataclass(frozen=True, kw_only=True)
class WordCounts:
    """How often each word occurs in a part of a corpus."""

    words: pl.DataFrame  # columns `word` (string, sorted) and `count` (integer)
    documents: int
    characters: int  # after cutting long documents


def count_words(files: Sequence[Path], *, doc_cap: int, max_chars: int) -> WordCounts:
    """Count the words in the `text` column of parquet files.

    Of each document the first `doc_cap` characters are read. Files and documents are taken in order; the
    document that reaches `max_chars` is the last. Memory grows with the number of distinct words only.
    Raises `DataError` where there is no text at all.
    """
    merged, pending = _no_words(), [_no_words()]
    documents = characters = 0
    for file in files:
        if characters >= max_chars:
            break
        texts = pl.scan_parquet(file).select(pl.col("text").str.head(doc_cap))
        lengths = texts.select(pl.col("text").str.len_chars().cast(pl.Int64)).collect(engine="streaming")
        upto = lengths["text"].fill_null(0).cum_sum()
        taken = int((upto - lengths["text"].fill_null(0) < max_chars - characters).sum())
        documents += taken
        characters += int(upto[taken - 1]) if taken else 0
        words = _split(pl.col("text")).explode().alias("word")
        counts = texts.head(taken).select(words).drop_nulls().group_by("word").agg(pl.len().alias("count"))
        pending.append(counts.cast(_WORD_SCHEMA).collect(engine="streaming"))
        if sum(map(len, pending)) > len(merged):  # each word is merged a few times, however many files
            merged, pending = _merge([merged, *pending]), []
    if not characters:
        raise DataError(
            f"the corpus holds no text: {len(files)} files, {documents} documents, 0 characters",
            hint="check corpus.source: parquet files with a text column are expected",
        )
    return WordCounts(
        words=_merge([merged, *pending]).sort("word"), documents=documents, characters=characters
    )


_WORD_SCHEMA = pl.Schema({"word": pl.String(), "count": pl.Int64()})


def _no_words() -> pl.DataFrame:
    return pl.DataFrame(schema=_WORD_SCHEMA)


def _merge(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(tables).group_by("word").agg(pl.col("count").sum())


def _split(text: pl.Expr) -> pl.Expr:
    """Cut strings into lists of words, as the pattern would."""
    marked = text.str.replace_all(r"(\s)([^\S\r\n][^\s])", "${1}" + _MARK + "${2}")
    return marked.str.extract_all(_LINEAR_PATTERN)
