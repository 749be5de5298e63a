"""Texts that share words in a row, against a search by plain loops."""

from __future__ import annotations

from unittest import mock

import numpy as np
import polars as pl
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from nanochat.evals.contamination import ngrams
from nanochat.evals.contamination.ngrams import GramIndex

_WORDS = ("a", "B", "ü", "x1", "7", "ein_Wort", "longer than thirteen bytes".replace(" ", "Q"), "字")
_TEXT = st.lists(
    st.tuples(st.sampled_from(_WORDS), st.sampled_from((" ", "-", ".\n", "… ", "_"))), max_size=12
).map(lambda pairs: "".join(word + mark for word, mark in pairs))
_TEXTS = st.lists(_TEXT, max_size=6)


def series(texts):
    return pl.Series(texts, dtype=pl.String)


def naive_grams(text, n):
    words = regex.findall(r"[\p{L}\p{N}]+", text.lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def found(items, texts, n=13):
    """Return which texts share a gram with an item, and which items with a text."""
    index = GramIndex(series(items), n)
    shared = index.find(series(texts))
    grams = np.zeros(len(index), np.bool_)
    grams[shared.grams] = True
    return set(shared.texts.tolist()), index.holders(grams).tolist()


@given(_TEXTS, _TEXTS, st.integers(1, 4))
def test_what_loops_find_is_found_and_nothing_else(items, texts, n):
    of_items, of_texts = ([naive_grams(text, n) for text in part] for part in (items, texts))
    index = GramIndex(series(items), n)
    assert len(index) == len(set().union(*of_items))
    assert index.long_enough().tolist() == [i for i, grams in enumerate(of_items) if grams]
    everything_in_texts, everything_in_items = set().union(*of_texts), set().union(*of_items)
    assert found(items, texts, n) == (
        {i for i, grams in enumerate(of_texts) if grams & everything_in_items},
        [i for i, grams in enumerate(of_items) if grams & everything_in_texts],
    )


@given(_TEXT, st.integers(1, 4), st.integers(1, 40))
def test_pieces_of_a_text_have_its_grams_and_no_others(text, n, size):
    with mock.patch.multiple(ngrams, _PIECE_BYTES=size, _SEAM_CHARACTERS=size // 2 + 1):
        parts = list(ngrams.pieces(text.encode(), n))
    assert set().union(*(naive_grams(part, n) for part in parts)) == naive_grams(text, n)
    assert max(map(len, parts)) <= max(len(text), 1)


def test_a_long_text_is_cut_into_pieces_of_bounded_length():
    text = " ".join(f"word{i}" for i in range(20_000))
    with mock.patch.multiple(ngrams, _PIECE_BYTES=10_000, _SEAM_CHARACTERS=1_000):
        parts = list(ngrams.pieces(text.encode(), 13))
    assert len(parts) > 10
    assert max(map(len, parts)) <= 11_000
    assert sum(map(len, parts)) < 1.1 * len(text)


THIRTEEN = "One two three four five six seven eight nine ten eleven twelve thirteen"


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        (f"before {THIRTEEN} after", True),
        ("ONE, two: three\tfour-five\n\nsix 'seven' (eight) nine ten… eleven; twelve_thirteen!", True),
        (THIRTEEN.replace(" thirteen", " fourteen"), False),
        (THIRTEEN.removeprefix("One "), False),
        (THIRTEEN.replace("six seven", "seven six"), False),
        (THIRTEEN.replace("seven", "seven and"), False),
    ],
)
def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_none(text, is_found):
    assert found([f"Question: {THIRTEEN}?"], ["", text, "other words"]) == (
        ({1}, [0]) if is_found else (set(), [])
    )


def test_words_at_the_end_of_one_text_and_the_beginning_of_the_next_are_not_in_a_row():
    head, tail = THIRTEEN[:30], THIRTEEN[30:]
    assert found([THIRTEEN], [head, tail]) == (set(), [])
    assert found([head, tail], [THIRTEEN]) == (set(), [])
    assert found([THIRTEEN], [head + tail]) == ({0}, [0])


def test_items_and_documents_that_occur_twice_are_all_found():
    assert found([THIRTEEN, "short", THIRTEEN.upper()], [THIRTEEN, "x", f"{THIRTEEN} {THIRTEEN}"]) == (
        {0, 2},
        [0, 2],
    )
