from __future__ import annotations

import os
import pickle

import pytest
import torch

from nanochat.errors import DataError
from nanochat.formats.tokenizer_pickle import (
    load_tokenizer_pickle,
    read_tokenizer_pickle,
    write_token_bytes,
    write_tokenizer_pickle,
)
from nanochat.tokenizer.tokenizer import Tokenizer


class _Evil:
    def __reduce__(self):
        return os.mkdir, (self.target,)

    def __init__(self, target):
        self.target = target


def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    target = tmp_path / "made-by-the-pickle"
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(_Evil(str(target))))
    with pytest.raises(DataError, match=r"mkdir; only tiktoken\.core\.Encoding is allowed"):
        read_tokenizer_pickle(tmp_path / "tokenizer.pkl")
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps({"pat_str": "x"}), pickle.dumps(3)])
def test_anything_but_an_encoding_is_a_data_error(tmp_path, content):
    (tmp_path / "tokenizer.pkl").write_bytes(content)
    with pytest.raises(DataError):
        read_tokenizer_pickle(tmp_path / "tokenizer.pkl")


def test_written_pickle_reads_back_as_an_equal_tokenizer(tmp_path):
    ranks = {bytes([b]): b for b in range(256)} | {b"th": 256, b"the": 257}
    tokenizer = Tokenizer.from_ranks(ranks)
    write_tokenizer_pickle(tokenizer, tmp_path / "tokenizer.pkl")
    again = load_tokenizer_pickle(tmp_path / "tokenizer.pkl")
    assert (again.ranks, again.special_tokens, again.pattern) == (
        tokenizer.ranks,
        tokenizer.special_tokens,
        tokenizer.pattern,
    )


def test_bytes_of_tokens_are_counted_as_decoded_or_as_they_are(tmp_path):
    # Token 256 is half of a character, and the bytes of 257 are two such halves around a letter.
    ranks = {bytes([b]): b for b in range(256)} | {b"\xf0\x9f": 256, b"\xf0a\xf0": 257, "é".encode(): 258}
    tokenizer = Tokenizer.from_ranks(ranks)
    for mode, lengths in (("decoded", [1, 3, 3, 7, 2]), ("raw", [1, 1, 2, 3, 2])):
        write_token_bytes(tokenizer, tmp_path / "token_bytes.pt", mode)
        written = torch.load(tmp_path / "token_bytes.pt", weights_only=True)
        assert (written.dtype, written.shape) == (torch.int32, (268,))
        assert written[[65, 128, 256, 257, 258]].tolist() == lengths
        assert written[259:].tolist() == [0] * 9


def test_the_same_bytes_are_written_whatever_the_folder_is_called(tmp_path):
    tokenizer = Tokenizer.from_ranks({bytes([b]): b for b in range(256)})
    files = [tmp_path / folder / "token_bytes.pt" for folder in ("plain", "Größe 日本")]
    for file in files:
        file.parent.mkdir()
        write_token_bytes(tokenizer, file)
    assert files[0].read_bytes() == files[1].read_bytes()
