from __future__ import annotations

import pytest
import tiktoken

from nanochat.tokenizer.split import PATTERN, isolate_long_runs
from nanochat.tokenizer.tokenizer import Tokenizer


@pytest.mark.parametrize(
    "text", ["ab{}cd", "{}", "!{}x", "a\n\n{}\n\n{}b", "{}1{}", "x{}\r", "! \n{}.", "{}\u3000\u00e9"]
)
def test_long_runs_are_cut_where_the_pattern_cuts(text):
    text = text.format(" \t" * 5, " " * 9)
    encoding = tiktoken.Encoding("bytes", pat_str=PATTERN, mergeable_ranks=_run_ranks(), special_tokens={})
    ids = []
    for part in isolate_long_runs(text, limit=6):
        ids += (
            encoding._encode_single_piece(part.text)
            if part.kind == "word"
            else encoding.encode_ordinary(part.text)
        )
    assert ids == encoding.encode_ordinary(text)
    assert "".join(part.text for part in isolate_long_runs(text, limit=6)) == text


def _run_ranks():
    """Ranks in which a merge depends on where runs of blanks are cut."""
    tokens = [bytes([b]) for b in range(256)]
    tokens += [b"  ", b" \t", b"    ", b" \t \t", b"\n\n", b" a", b" c", b" x", b"\t\n"]
    return {token: rank for rank, token in enumerate(tokens)}


@pytest.mark.parametrize("around", ["{}", "a{}b", "a{}"])
def test_a_million_blanks_do_not_break_the_encoder(around):
    tokenizer = Tokenizer.from_ranks(_run_ranks())
    text = around.format(" " * 1_200_000)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch([text])[0].tolist() == tokenizer.encode(text)
