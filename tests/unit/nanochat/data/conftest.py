"""A tokenizer of 256 bytes and nine special tokens, and a way to make token shards from texts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nanochat.data.text.token_shards import TokenShard, write_token_shard

_NAMES = [
    "bos",
    *("user_start", "user_end", "assistant_start", "assistant_end"),
    *("python_start", "python_end", "output_start", "output_end"),
]


class ByteTokenizer:
    """Stands in for a trained tokenizer where a test needs ids but no vocabulary."""

    def __init__(self, vocab_size: int = 265) -> None:
        self.vocab_size = vocab_size
        self.pattern = "."
        self.ranks = {bytes([i]): i for i in range(256)}
        self.special_tokens = {f"<|{name}|>": 256 + i for i, name in enumerate(_NAMES)}

    def special(self, name: str) -> int:
        return self.special_tokens[f"<|{name}|>"]

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts):
        return [np.frombuffer(text, np.uint8).astype(np.int32) for text in texts]

    def decode(self, ids) -> str:
        return bytes(i for i in ids if i < 256).decode()

    def token_bytes(self):
        return np.array([1] * 256 + [0] * (self.vocab_size - 256), np.int32)


@pytest.fixture(scope="session")
def make_tokenizer() -> type[ByteTokenizer]:
    return ByteTokenizer


@pytest.fixture(scope="session")
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture(scope="session")
def make_shard(tmp_path_factory, tokenizer) -> Callable[..., TokenShard]:
    def make(texts, using=tokenizer) -> TokenShard:
        folder = tmp_path_factory.mktemp("shard")
        write_token_shard(folder, [[text.encode() for text in texts]], using)
        return TokenShard.open(folder)

    return make
