from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanochat.data.text.token_shards import TokenShard, vocabulary_digest, write_token_shard
from nanochat.errors import DataError

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(texts=st.lists(st.text(max_size=40), max_size=30))
def test_every_document_reads_back_as_it_was_written(texts, make_shard, tokenizer):
    shard = make_shard(texts)
    assert shard.n_documents == len(texts)
    assert shard.n_tokens == sum(len(text.encode()) + 1 for text in texts)
    for i, text in enumerate(texts):
        ids = shard.document(i).tolist()
        assert ids[0] == tokenizer.special("bos")
        assert tokenizer.decode(ids[1:]) == text


def test_how_documents_are_batched_does_not_change_the_bytes(tmp_path, tokenizer):
    texts = [f"document {i} ".encode() * (i % 7) for i in range(50)]
    write_token_shard(tmp_path / "one", [texts], tokenizer)
    write_token_shard(tmp_path / "many", [texts[i : i + 3] for i in range(0, 50, 3)], tokenizer)
    for name in ("tokens.bin", "stats.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_stats_count_documents_characters_bytes_and_tokens(tmp_path, tokenizer):
    stats = write_token_shard(tmp_path, [["añb".encode(), b""]], tokenizer)
    assert stats == {"documents": 2, "characters": 3, "bytes": 4, "tokens": 6}
    assert json.loads((tmp_path / "stats.json").read_text()) == stats


def test_tokens_and_offsets_are_aligned_in_the_documented_layout(tmp_path, tokenizer):
    write_token_shard(tmp_path, [[b"ab", b"c"]], tokenizer)
    raw = (tmp_path / "tokens.bin").read_bytes()
    magic, version, itemsize, vocab, documents, tokens = struct.unpack_from("<8sHHIQQ", raw)
    assert (magic, version, itemsize, vocab, documents, tokens) == (b"NCTOKENS", 2, 2, 265, 2, 5)
    assert raw[32:64].hex() == vocabulary_digest(tokenizer)
    assert raw[64:96] == hashlib.sha256(raw[128:138]).digest()
    assert raw[96:128] == hashlib.sha256(raw[192:]).digest()
    assert np.frombuffer(raw, "<u2", 5, 128).tolist() == [256, 97, 98, 256, 99]
    assert np.frombuffer(raw, "<u8", 3, 192).tolist() == [0, 3, 5]
    assert len(raw) == 192 + 24


def test_documents_are_read_one_by_one_in_ranges_and_all_together(make_shard):
    shard = make_shard(["ab", "", "cde", "f"])
    assert [ids.tolist() for ids in shard] == [[256, 97, 98], [256], [256, 99, 100, 101], [256, 102]]
    assert shard.span(1, 3).tolist() == [256, 256, 99, 100, 101]
    assert shard.span(0, 4).tolist() == shard.tokens.tolist()
    assert shard.span(4, 4).tolist() == []
    for first, stop in ((-1, 2), (2, 5), (3, 2)):
        with pytest.raises(IndexError, match="a shard with 4"):
            shard.span(first, stop)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65536, "uint16"), (65537, "uint32")])
def test_token_width_follows_the_vocabulary(vocab_size, dtype, make_shard, make_tokenizer):
    shard = make_shard(["abc"], make_tokenizer(vocab_size))
    assert shard.tokens.dtype == dtype
    assert shard.tokens.tolist() == [256, 97, 98, 99]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1], "but its header says"),
        (lambda raw: raw[:40], "not a token shard"),
        (lambda raw: raw + b"x", "but its header says"),
        (lambda raw: b"PAR1" + raw[4:], "not a token shard"),
        (lambda raw: raw[:8] + b"\x09\x00" + raw[10:], "format 9"),
        (lambda raw: raw[:10] + b"\x04\x00" + raw[12:], "bytes per token"),
        (lambda raw: raw[:-16] + bytes(8) + raw[-8:], "document offsets are not those that were written"),
    ],
)
def test_a_damaged_file_is_refused(damage, message, tmp_path, tokenizer):
    write_token_shard(tmp_path, [[b"abc", b"de"]], tokenizer)
    path = tmp_path / "tokens.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        TokenShard.open(tmp_path)


def test_a_changed_token_is_found_by_its_hash(tmp_path, tokenizer):
    write_token_shard(tmp_path, [[b"abc", b"de"]], tokenizer)
    TokenShard.open(tmp_path).verify()
    path = tmp_path / "tokens.bin"
    raw = bytearray(path.read_bytes())
    raw[130] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"tokens\.bin: its tokens are not those that were written"):
        TokenShard.open(tmp_path).verify()


def test_offsets_of_another_writer_must_rise(tmp_path, tokenizer):
    write_token_shard(tmp_path, [[b"abc", b"de"]], tokenizer)
    path = tmp_path / "tokens.bin"
    raw = path.read_bytes()[:-24] + struct.pack("<3Q", 0, 0, 7)
    path.write_bytes(raw[:96] + hashlib.sha256(raw[-24:]).digest() + raw[128:])
    with pytest.raises(DataError, match="do not rise from 0 to 7"):
        TokenShard.open(tmp_path)


def test_a_shard_of_another_vocabulary_is_refused(tmp_path, tokenizer, make_tokenizer):
    write_token_shard(tmp_path, [[b"abc"]], tokenizer)
    assert TokenShard.open(tmp_path, vocabulary_digest(tokenizer)).n_documents == 1
    with pytest.raises(DataError, match="vocabulary"):
        TokenShard.open(tmp_path, vocabulary_digest(make_tokenizer(300)))


def test_a_missing_file_is_a_data_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=r"tokens\.bin"):
        TokenShard.open(tmp_path)


def test_a_tokenizer_that_loses_text_is_noticed(tmp_path, make_tokenizer):
    class Lossy(make_tokenizer):
        def encode_batch(self, texts):
            return [ids[:3] for ids in super().encode_batch(texts)]

    with pytest.raises(DataError, match="hold 3 bytes, their text 5"):
        write_token_shard(tmp_path, [[b"abcde"]], Lossy())


def test_views_are_read_only(make_shard):
    with pytest.raises(ValueError, match="read-only"):
        make_shard(["abc"]).tokens[0] = 1
