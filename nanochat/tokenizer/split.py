"""Where text is cut into words before byte-pair encoding.

The pattern is nanochat's: GPT-4's with at most two digits to a word. This module does not count, train or
encode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from nanochat.errors import DataError

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""nanochat's split pattern, in the dialect of tiktoken. It begins a word before every space that is not
followed by white space, and after every newline that is not: the lexicon relies on it."""

# Unicode White_Space without newlines, as tiktoken's engine has it; Python's \s also takes U+001C to U+001F.
_BLANKS = "\t\v\f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
_BLANKS += "\u2028\u2029\u202f\u205f\u3000"
FAR_BLANKS = tuple(blank.encode() for blank in _BLANKS if not blank.isascii())
"""White space outside of ASCII, in UTF-8."""
_LONG_RUN = 100_000
_LONGEST_PATTERN = 10_000
_CONTINUING = bytes(range(0x80, 0xC0))


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


def check_pattern(pattern: str) -> None:
    """Raise DataError for a split pattern that tiktoken's engine may fail on, or that is not one.

    Back-references make it backtrack without a bound, and its failure is a panic that ends the program.
    """
    escapes = {escape[1] for escape in re.finditer(r"\\(.)", pattern, re.DOTALL)}
    if escapes & set("123456789gk") or re.search(r"\(\?(P=|P>|R|&|\(|\d)", pattern):
        raise DataError(
            f"the split pattern has a back-reference or a recursion: {pattern[:60]!r}",
            hint="only patterns without them are read, such as nanochat's and those of GPT-2 and GPT-4",
        )
    if len(pattern) > _LONGEST_PATTERN:
        raise DataError(
            f"the split pattern has {len(pattern):,} characters; at most {_LONGEST_PATTERN:,} are read"
        )


PROBE = " ".join(
    ("It's a test, I'LL say:", "x = 12345.67\n\n\tif (é) {日本語}  ", "a" * 64, "🙂\r\n \u3000", "!?")
)
"""Text of every kind, which each split pattern must cut without losing any of it."""


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
