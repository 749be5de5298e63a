"""Laws of the tokenizer: nothing is lost, and counting cuts words exactly where encoding does."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanochat.tokenizer.bpe_training import train_ranks
from nanochat.tokenizer.split import count_words
from nanochat.tokenizer.tokenizer import Tokenizer

TEXT = st.text(
    st.one_of(st.sampled_from("aB1 \n\r\t.'!?s\u00a0\u3000é😀_<|>"), st.characters(exclude_categories=["Cs"]))
)
SOME_WORDS = [
    (" the", 50),
    ("the", 20),
    (" then", 9),
    ("\n\n", 7),
    ("  ", 6),
    (" 19", 5),
    ("é", 4),
    ("'s", 3),
]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_ranks(train_ranks(SOME_WORDS, 264))


@given(TEXT)
def test_decoding_gives_back_every_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert int(tokenizer.token_bytes()[ids].sum()) == len(text.encode())


@given(st.lists(TEXT, max_size=4))
def test_batches_encode_like_single_texts(tokenizer, texts):
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == [
        tokenizer.encode(text) for text in texts
    ]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(TEXT.filter(lambda text: "\ufdd0" not in text), min_size=1, max_size=5).filter(any))
def test_counted_words_are_the_words_the_encoder_sees(tmp_path, texts):
    pl.DataFrame({"text": texts}).write_parquet(tmp_path / "a.parquet")
    counted = dict(count_words([tmp_path / "a.parquet"], doc_cap=1000, max_chars=10**6).words.iter_rows())
    assert counted == Counter(word for text in texts for word in _words(text, list(counted)))


def _words(text: str, candidates: list[str]) -> list[str]:
    """Words of a text as tiktoken cuts them: a tokenizer that knows every candidate gives one id per word."""
    tokens = {bytes([b]): b for b in range(256)}
    for candidate in candidates:
        tokens.setdefault(candidate.encode(), len(tokens))
    tokenizer = Tokenizer.from_ranks(tokens)
    return [tokenizer.decode([i]) for i in tokenizer.encode(text)]
