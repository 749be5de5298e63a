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
