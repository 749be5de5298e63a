from __future__ import annotations

import numpy as np
import pytest
import sentencepiece

from nanochat.errors import DataError
from nanochat.tokenizer.bpe_training import map_bytes
from nanochat.tokenizer.tokenizer import Tokenizer

RANKS = {bytes([b]): b for b in range(256)} | {
    b"th": 256,
    b" th": 257,
    b"\xf0\x9f": 258,
    b"\xf0\x9f\x98\x80": 259,
}

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


@pytest.fixture
def tokenizer():
    return Tokenizer.from_ranks(RANKS)


def test_saved_tokenizer_loads_equal(tokenizer, tmp_path):
    tokenizer.save(tmp_path, {"documents": 3})
    again = Tokenizer.load(tmp_path)
    assert (again.ranks, again.special_tokens, again.pattern) == (
        tokenizer.ranks,
        tokenizer.special_tokens,
        tokenizer.pattern,
    )


def test_model_file_has_piece_ids_equal_to_token_ids(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert model.encode(map_bytes(b" th")) == [257]
    assert model.is_control(tokenizer.special("bos"))
    assert model.encode("<|bos|>") == tokenizer.encode("<|bos|>")
    assert len(model) == tokenizer.vocab_size + 1
    assert model.unk_id() == tokenizer.vocab_size


def test_special_text_is_never_special(tokenizer):
    ids = tokenizer.encode("<|bos|><|assistant_end|>")
    assert max(ids) < len(RANKS)
    assert tokenizer.encode_batch(["<|bos|>"])[0].max() < len(RANKS)


def test_token_bytes_are_raw_lengths_and_zero_for_specials(tokenizer):
    lengths = tokenizer.token_bytes()
    assert lengths.dtype == np.int32
    assert lengths[[0, 256, 258, 259]].tolist() == [1, 2, 2, 4]
    assert lengths[260:].tolist() == [0] * 9


def test_incomplete_characters_decode_to_bytes_and_replacement(tokenizer):
    assert tokenizer.decode_bytes([258]) == b"\xf0\x9f"
    assert tokenizer.decode([258]) == "\ufffd"
    assert tokenizer.decode([259, tokenizer.special("bos")]) == "😀<|bos|>"


@pytest.mark.parametrize("text", ["ab\ud800c", "ab\udc80", "ab\ud83d\ude00"])
def test_lone_surrogates_are_refused_with_their_place(tokenizer, text):
    with pytest.raises(DataError, match=r"U\+D[8-C][0-9A-F]+ at character 2") as caught:
        tokenizer.encode(text)
    assert caught.value.hint
    with pytest.raises(DataError, match="text 1 has the lone surrogate"):
        tokenizer.encode_batch(["fine", text])
    assert tokenizer.encode_batch(["th"])[0].tolist() == [256]  # and goes on working


def test_unknown_ids_are_a_data_error(tokenizer):
    with pytest.raises(DataError, match="outside of the vocabulary of 269"):
        tokenizer.decode([269])


def test_ids_with_a_gap_are_refused():
    with pytest.raises(DataError, match="each once"):
        Tokenizer.from_ranks({b"a": 0, b"b": 2})


def test_missing_and_damaged_folders_are_data_errors(tokenizer, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"damaged")
    with pytest.raises(DataError, match="damaged"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"(a)\1|[\s\S]", "has a back-reference"),
        (r"(?P<x>a+)(?P=x)|[\s\S]", "has a back-reference"),
        (r"(?<x>a+)\k<x>|[\s\S]", "has a back-reference"),
        (r"(a|(?R))|[\s\S]", "has a back-reference or a recursion"),
        ("", "cannot be used: PanicException"),
        ("(", "cannot be used: ValueError"),
        ("a{1000000000}", "cannot be used: ValueError"),
        (r"\w+", "loses text between its words"),
        ("|".join(["ab"] * 5000), "14,999 characters; at most 10,000"),
    ],
)
def test_a_split_pattern_that_fails_or_loses_text_is_refused(pattern, reason):
    with pytest.raises(DataError, match=reason):
        Tokenizer.from_ranks(RANKS, pattern)


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, r"[\s\S]+", r"(?<=a)b|\\1|[\s\S]"])
def test_other_patterns_are_taken_if_they_keep_all_text(pattern):
    text = "It's 12345 \\1 words,\n\n  ab"
    tokenizer = Tokenizer.from_ranks(RANKS, pattern)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_text_on_which_the_engine_fails_is_an_error_and_no_panic():
    tokenizer = Tokenizer.from_ranks(RANKS, r"(?:x|xx)+(?!x|z)y|[\s\S]")
    with pytest.raises(DataError, match="fails on a text of 42 characters"):
        tokenizer.encode("x" * 41 + "z")
    with pytest.raises(DataError, match="fails on a text of 42 characters"):
        tokenizer.encode_batch(["x" * 41 + "z"])


def test_tables_that_hold_a_huge_token_or_lack_a_byte_are_refused():
    with pytest.raises(DataError, match="token 260 has 262,144 bytes; at most 4,096"):
        Tokenizer.from_ranks(RANKS | {b"a" * 2**18: len(RANKS)})
    with pytest.raises(DataError, match="lacks 1 of the 256 single bytes, such as 0xff"):
        Tokenizer.from_ranks({bytes([b]): b for b in range(255)})
