"""A tiny model and tokenizer for the evaluations."""

from __future__ import annotations

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.model.gpt import GPT
from nanochat.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrices this small only lose by sharing."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(former)


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer.from_ranks({bytes([b]): b for b in range(256)} | {b" a": 256, b" the": 257})


@pytest.fixture(scope="session")
def model(tokenizer):
    shape = {
        "sequence_len": 64,
        "vocab_size": tokenizer.vocab_size,
        "n_layer": 2,
        "n_head": 2,
        "n_kv_head": 2,
    }
    model = GPT(ModelConfig(**shape, n_embd=32))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.3, generator=generator))
    return model.eval()
