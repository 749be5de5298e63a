"""A small model whose weights are all drawn, so that every path shows in its logits."""

from __future__ import annotations

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.model.gpt import GPT


@pytest.fixture
def model() -> GPT:
    """Two layers, four heads on two key/value heads, 97 tokens; the same weights each time."""
    made = GPT(ModelConfig(sequence_len=16, vocab_size=97, n_layer=2, n_head=4, n_kv_head=2, n_embd=32))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.3, generator=generator))
    return made
