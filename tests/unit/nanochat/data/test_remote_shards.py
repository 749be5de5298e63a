from __future__ import annotations

import uuid

import fsspec
import numpy as np
import pytest

from nanochat.data.batches import PretrainBatches
from nanochat.data.prefetch import Prefetch
from nanochat.data.remote_shards import RemoteShards
from nanochat.data.token_shards import vocabulary_digest
from nanochat.errors import DataError


@pytest.fixture
def shards(make_shard):
    return [make_shard([f"shard {n} document {i} " * (i % 4) for i in range(60)]) for n in range(3)]


def upload(shards, root):
    urls = [f"{root}/{n}/tokens.bin" for n in range(len(shards))]
    for shard, url in zip(shards, urls, strict=True):
        filesystem, path = fsspec.core.url_to_fs(url)
        filesystem.pipe_file(path, shard.path.read_bytes())
    return urls


@pytest.fixture
def urls(shards):
    return upload(shards, f"memory://{uuid.uuid4().hex}")


def same(shards, remote, steps):
    local = PretrainBatches(shards, 4, 32, 7, 256)
    away = PretrainBatches(remote.shards, 4, 32, 7, 256, remote.read)
    assert away.accounting(20) == local.accounting(20)
    with Prefetch(away.batch, 500, threads=3) as batch:
        for step in steps:
            for a, b in zip(batch(step), local.batch(step), strict=True):
                assert np.array_equal(a, b)


def test_batches_are_the_same_wherever_the_tokens_are(shards, urls, tokenizer):
    same(shards, RemoteShards(urls, vocabulary_digest(tokenizer)), [0, 1, 2, 300, 301])


def test_batches_come_from_an_s3_service(shards, s3_store_url):
    same(shards, RemoteShards(upload(shards, s3_store_url)), [0, 1, 2])


def test_wide_tokens_are_read_too(make_shard, make_tokenizer):
    shards = [make_shard(["abc", "defg"], make_tokenizer(70_000))]
    same(shards, RemoteShards(upload(shards, f"memory://{uuid.uuid4().hex}")), [0])


def test_what_is_no_shard_of_the_vocabulary_is_refused_by_its_address(urls, make_tokenizer):
    with pytest.raises(DataError, match=r"/0/tokens\.bin: its tokens are of vocabulary"):
        RemoteShards(urls, vocabulary_digest(make_tokenizer(300)))
    filesystem, path = fsspec.core.url_to_fs(urls[1])
    whole = filesystem.cat_file(path)
    for damaged, message in ((whole[:-8], "but its header says"), (whole[:-1] + b"x", "document offsets")):
        filesystem.pipe_file(path, damaged)
        with pytest.raises(DataError, match=rf"/1/tokens\.bin: .*{message}"):
            RemoteShards(urls)
    filesystem.rm_file(path)
    with pytest.raises(DataError, match=r"/1/tokens\.bin: cannot be read: FileNotFoundError"):
        RemoteShards(urls)
