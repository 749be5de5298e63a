"""Small models whose weights are all drawn, so that every path shows in their logits."""

from __future__ import annotations

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.model.gpt import GPT

TINY = {"sequence_len": 16, "vocab_size": 97, "n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 32}


def drawn(config: ModelConfig) -> GPT:
    """Return a model with the same weights each time."""
    made = GPT(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.3, generator=generator))
    return made


@pytest.fixture
def classic() -> GPT:
    """Three layers, four heads on two key/value heads, 97 tokens."""
    return drawn(ModelConfig(**TINY))


@pytest.fixture
def july() -> GPT:
    """The same in architecture 2026: windows of 128, 128 and 16, two value embeddings, 31 padding rows."""
    return drawn(ModelConfig(architecture="2026", **TINY))


@pytest.fixture(params=["classic", "july"])
def model(request: pytest.FixtureRequest) -> GPT:
    """Each architecture in turn."""
    made: GPT = request.getfixturevalue(request.param)
    return made
