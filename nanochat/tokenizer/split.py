"""Where text is cut into words before byte-pair encoding, and how often each word occurs.

The pattern is nanochat's: GPT-4's with at most two digits to a word. It needs possessive quantifiers and a
look-ahead, which the linear-time regex engine of polars lacks; `count_words` uses an equivalent pattern after
marking the one place where the look-ahead matters. This module does not train and does not encode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from nanochat.errors import DataError

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""nanochat's split pattern, in the dialect of tiktoken. It begins a word before every space that is not
followed by white space, and after every newline that is not: the lexicon relies on it."""

_MARK = "\ufdd0"  # a noncharacter; in a text of its own it is left out of the counts
_LINEAR_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}\x{FDD0}]?\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}\x{FDD0}]+[\r\n]*|\s*[\r\n]|\s+"
)

# Unicode White_Space without newlines, as tiktoken's engine has it; Python's \s also takes U+001C to U+001F.
_BLANKS = "\t\v\f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
_BLANKS += "\u2028\u2029\u202f\u205f\u3000"
FAR_BLANKS = tuple(blank.encode() for blank in _BLANKS if not blank.isascii())
"""White space outside of ASCII, in UTF-8."""
_LONG_RUN = 100_000
_CONTINUING = bytes(range(0x80, 0xC0))


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


def utf8(text: str, name: str = "the text") -> bytes:
    """Return text as UTF-8; raises `DataError` at a lone surrogate, which is not a character."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise DataError(
            f"{name} has the lone surrogate U+{ord(text[at]):04X} at character {at}, which UTF-8 cannot hold",
            hint="read the text with the encoding it was written in, or replace such characters",
        ) from None


def characters(raw: bytes) -> int:
    """Return how many characters UTF-8 text has: all bytes but those that continue one."""
    return len(raw.translate(None, _CONTINUING))


class Stretch(NamedTuple):
    """A stretch of text: `text` still has to be cut into words, `word` is one word."""

    kind: Literal["text", "word"]
    text: str


def isolate_long_runs(text: str, limit: int = _LONG_RUN) -> Iterator[Stretch]:
    """Cut words of about `limit` or more blanks out of a text, exactly where `PATTERN` cuts.

    The look-ahead makes tiktoken's backtracking engine fail on about a million blanks that no newline
    follows; all other stretches are handed back as they were.
    """
    start = 0
    if len(text) >= limit:
        for run in re.finditer(f"[{_BLANKS}]{{{limit},}}", text):
            at_end = run.end() == len(text)
            if not at_end and text[run.end()] in "\r\n":
                continue  # one word with its newline, found without the look-ahead
            if run.start() > start:
                yield Stretch("text", text[start : run.start()])
            start = run.end() if at_end else run.end() - 1  # the last blank goes with what follows
            yield Stretch("word", text[run.start() : start])
    if start < len(text):
        yield Stretch("text", text[start:])
