from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from nanochat.tokenizer import lexicon
from nanochat.tokenizer.tokenizer import Tokenizer

NASTY = [
    "",
    " ",
    "a  b   c",
    "end  ",
    " begin",
    "12 34  56 789",
    "tab\t x\t\ty \tz",
    "\r\n \r x\r\n\r\n  y \n z",
    "“quoted” – dash … \u3000wide \u3000 x \u00a0y \u0085z \u2028w \u1680v \u205fu",
    "nul\0 \0nul \x1c x \x7f y",
    "don't DON'T it's 'll x's 's",
    "▁ ▁▁ a▁b <unk> <|bos|> <|bos|>",
    "😀 😀😀 é é̃ 中文 没有空格的文字 ก็ x",
    " " * 40 + "x" + " " * 41,
]
RANKS = {bytes([b]): b for b in range(256)} | {
    token: 256 + i
    for i, token in enumerate(
        [
            b"  ",
            b"    ",
            b" a",
            b" x",
            b"\r\n",
            b"\n ",
            b" \n",
            b"xy",
            b"\xe3\x80",
            b" \xe3",
            b"'s",
            b"12",
            b"1 ",
        ]
    )
}


def _random_texts(seed: int, n: int) -> list[str]:
    rng = random.Random(seed)
    words = [" ", " ", "  ", "\n", "a", "x", "12", "'s", "\u3000", "é", "<|bos|>", "."]
    return ["".join(rng.choices(words, k=rng.randint(0, 60))) for _ in range(n)]


@pytest.fixture
def tokenizer():
    return Tokenizer.from_ranks(RANKS)


def _expected(tokenizer, texts):
    return [tokenizer._encoding.encode_ordinary(text) for text in texts]


def _batch(tokenizer, texts):
    return [ids.tolist() for ids in tokenizer.encode_batch(texts)]


def test_ids_are_those_of_tiktoken_at_first_and_when_all_is_known(tokenizer):
    texts = [*NASTY, *_random_texts(1, 333)]
    for _ in range(3):
        assert _batch(tokenizer, texts) == _expected(tokenizer, texts)
    assert _batch(tokenizer, [text.encode() for text in texts]) == _expected(tokenizer, texts)
    backwards = texts[::-1]  # other neighbours for the same stretches
    assert _batch(tokenizer, backwards) == _expected(tokenizer, backwards)


@pytest.mark.parametrize("window", [1, 7, 63])
def test_windows_cut_texts_without_a_trace(tokenizer, monkeypatch, window):
    monkeypatch.setattr(lexicon, "_WINDOW_BYTES", window)
    texts = [*NASTY, *_random_texts(2, 33)]
    assert _batch(tokenizer, texts) == _expected(tokenizer, texts)


def test_a_full_lexicon_starts_anew_and_stays_small(monkeypatch):
    monkeypatch.setattr(lexicon, "_MAX_STRETCHES", 40)
    tokenizer = Tokenizer.from_ranks(RANKS)
    for n in range(50):
        texts = [f" n{n}x{i} n{n}x{i}" for i in range(11)]
        assert _batch(tokenizer, texts) == _expected(tokenizer, texts)
    (used,) = tokenizer._lexicons
    assert 11 <= len(used._index) <= len(used._table.lengths) <= 40 + 11


def test_rare_and_long_stretches_are_not_kept():
    tokenizer = Tokenizer.from_ranks(RANKS)
    long = " " + "y" * 100
    tokenizer.encode_batch(["once twice twice" + long + long])
    (used,) = tokenizer._lexicons
    assert set(used._index) == {b" twice"}


def test_empty_batches_and_texts_have_no_tokens(tokenizer):
    assert tokenizer.encode_batch([]) == []
    assert _batch(tokenizer, ["", "", "a", ""]) == [[], [], [97], []]


def test_threads_share_a_tokenizer(tokenizer):
    batches = [_random_texts(seed, 99) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda texts: _batch(tokenizer, texts), batches))
    assert found == [_expected(tokenizer, texts) for texts in batches]


def test_a_pattern_that_joins_words_is_left_to_tiktoken():
    tokenizer = Tokenizer.from_ranks(RANKS | {b"y z": len(RANKS)}, r"[\s\S]+")
    assert _batch(tokenizer, ["y z", "a"]) == [[len(RANKS)], [ord("a")]]


@pytest.mark.parametrize("word", ["a", "é", "'s", "\n", "\u3000", "1", "!?"])
def test_megabytes_without_a_space_are_encoded_whole(tokenizer, word):
    text = "x " + word * (1_000_003 // len(word)) + " x"
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.decode_bytes(ids.tolist()) == text.encode()
    assert ids.tolist() == tokenizer.encode(text)
