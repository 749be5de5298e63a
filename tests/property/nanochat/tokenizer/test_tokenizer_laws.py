"""Laws of the tokenizer: nothing is lost, and counting cuts words exactly where encoding does."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import polars as pl
import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanochat.errors import DataError
from nanochat.tokenizer import lexicon
from nanochat.tokenizer.bpe_training import train_ranks
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.tokenizer.word_counts import count_words

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


# One for all examples, so that most of them meet a lexicon with the words of earlier ones.
@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_ranks(train_ranks(SOME_WORDS, 264))


@pytest.fixture(scope="module")
def oracle(tokenizer):
    """tiktoken with the same ranks and no code of ours around it."""
    return tiktoken.Encoding(
        "oracle", pat_str=tokenizer.pattern, mergeable_ranks=tokenizer.ranks, special_tokens={}
    )


@given(TEXT)
def test_decoding_gives_back_every_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert int(tokenizer.token_bytes()[ids].sum()) == len(text.encode())


@settings(max_examples=300)
@given(st.lists(TEXT, max_size=4))
def test_batches_and_single_texts_have_the_ids_of_tiktoken(tokenizer, oracle, texts):
    expected = [oracle.encode_ordinary(text) for text in texts]
    assert [tokenizer.encode(text) for text in texts] == expected
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == expected
    with mock.patch.object(lexicon, "_WINDOW_BYTES", 3):  # cut wherever a long text may be cut
        raws = [text.encode() for text in texts]
        assert [ids.tolist() for ids in tokenizer.encode_batch(raws)] == expected


def test_every_character_keeps_its_bytes_and_has_the_ids_of_tiktoken(tokenizer, oracle):
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    lines = ["".join(characters[i : i + 2048]) for i in range(0, len(characters), 2048)]
    texts = [*lines, *(" " + " ".join(line) for line in lines)]  # beside each other, and after a space each
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert ids.tolist() == oracle.encode_ordinary(text)
        assert tokenizer.decode_bytes(ids.tolist()) == text.encode()


@given(st.binary())
def test_bytes_are_encoded_where_they_are_text_and_refused_where_not(tokenizer, raw):
    assert tokenizer.decode_bytes(list(raw)) == raw  # every byte is a token
    text = raw.decode(errors="surrogateescape")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        with pytest.raises(DataError, match="lone surrogate"):
            tokenizer.encode(text)
        assert raw[: error.start].decode() == text[: text.index(chr(0xDC00 + raw[error.start]))]
    else:
        assert tokenizer.decode_bytes(tokenizer.encode(text)) == raw


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(TEXT.filter(lambda text: "\ufdd0" not in text), min_size=1, max_size=5).filter(any))
def test_counted_words_are_the_words_the_encoder_sees(tmp_path, texts):
    pl.DataFrame({"text": texts}).write_parquet(tmp_path / "a.parquet")
    counts = count_words([tmp_path / "a.parquet"], doc_cap=1000, max_chars=10**6)
    counted = dict(counts.words.iter_rows())
    assert counted == Counter(word for text in texts for word in _words(text, list(counted)))


def _words(text: str, candidates: list[str]) -> list[str]:
    """Words of a text as tiktoken cuts them: a tokenizer that knows every candidate gives one id per word."""
    tokens = {bytes([b]): b for b in range(256)}
    for candidate in candidates:
        tokens.setdefault(candidate.encode(), len(tokens))
    tokenizer = Tokenizer.from_ranks(tokens)
    return [tokenizer.decode([i]) for i in tokenizer.encode(text)]
