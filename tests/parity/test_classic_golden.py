"""The classic model against outputs recorded from upstream nanochat of October 2025 (CPU, float32)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.model.checkpoint import model_from_state
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache

FOLDER = "nanochat-2025-10"


@pytest.fixture(scope="module")
def golden(shared_golden: Path):
    return json.loads((shared_golden / FOLDER / "golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained(shared_golden: Path, golden) -> GPT:
    path = shared_golden / FOLDER / "chatsft_checkpoints/d3/model_000650.pt"
    config = ModelConfig(**golden["config"])
    return model_from_state(config, torch.load(path, weights_only=True), source=str(path))


def test_logits_agree_to_1e_4(shared_golden: Path, golden, trained: GPT) -> None:
    recorded = torch.load(shared_golden / FOLDER / "golden_logits.pt", weights_only=True)
    for prompt, logits in zip(golden["prompt_ids"], recorded["logits"], strict=True):
        with torch.no_grad():
            torch.testing.assert_close(trained(torch.tensor([prompt]))[0], logits, atol=1e-4, rtol=0)


def test_loss_of_each_token_agrees_to_1e_4(shared_golden: Path, trained: GPT) -> None:
    recorded = torch.load(shared_golden / FOLDER / "golden_logits.pt", weights_only=True)["loss_none"]
    batches = torch.load(shared_golden / FOLDER / "train_batches.pt", weights_only=True)
    with torch.no_grad():
        losses = trained(batches["inputs"][0], batches["targets"][0], loss_reduction="none")
    torch.testing.assert_close(losses.reshape(-1), recorded.reshape(-1), atol=1e-4, rtol=0)


def test_greedy_tokens_with_a_cache_are_the_recorded_ones(golden, trained: GPT) -> None:
    for prompt, expected in zip(golden["prompt_ids"], golden["greedy_24"], strict=True):
        cache = KVCache(trained.config, rows=1)
        tokens = list(prompt)
        new = tokens
        with torch.no_grad():
            while len(tokens) < len(expected):
                logits = trained(torch.tensor([new]), kv_cache=cache, last_only=True)
                new = [int(logits[0, -1].argmax())]
                tokens += new
        assert tokens == expected


def test_counts_are_the_recorded_ones(golden, trained: GPT) -> None:
    assert sum(weight.numel() for weight in trained.parameters()) == golden["num_params"]
    assert trained.flops_per_token() == golden["flops_per_token"]
