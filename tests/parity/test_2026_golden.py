"""The 2026 model against outputs recorded from upstream nanochat of July 2026 (CPU, float32)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nanochat.config import ModelConfig
from nanochat.model.checkpoint import model_from_state
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from tests.support.greedy import greedy


@pytest.fixture(scope="module")
def folder(shared_golden: Path) -> Path:
    return shared_golden / "nanochat-2026-07"


@pytest.fixture(scope="module")
def golden(folder: Path):
    return json.loads((folder / "golden.json").read_text(encoding="utf-8"))


def load(path: Path, golden) -> GPT:
    config = ModelConfig(architecture="2026", **golden["config"])
    return model_from_state(config, torch.load(path, weights_only=True), source=str(path))


@pytest.fixture(scope="module")
def trained(folder: Path, golden) -> GPT:
    return load(folder / "d4/model_000008.pt", golden)


@pytest.fixture(scope="module")
def recorded(folder: Path) -> list[torch.Tensor]:
    """The logits of the last 48 positions of each prompt: past the short windows of 128."""
    found: list[torch.Tensor] = torch.load(folder / "golden_logits.pt", weights_only=True)["logits_last_48"]
    return found


def test_logits_agree_to_1e_4(golden, recorded, trained: GPT) -> None:
    for prompt, logits in zip(golden["prompt_ids"], recorded, strict=True):
        with torch.no_grad():
            found = trained(torch.tensor([prompt]))[0, -48:]
        torch.testing.assert_close(found, logits, atol=1e-4, rtol=0)


def test_logits_with_a_cache_in_uneven_chunks_agree_to_1e_4(golden, recorded, trained: GPT) -> None:
    for prompt, logits in zip(golden["prompt_ids"], recorded, strict=True):
        cache = KVCache(trained.config, 1, len(prompt))
        first, *chunks, last = torch.tensor([prompt]).tensor_split([1, 3, len(prompt) // 2, -3], dim=1)
        with torch.no_grad():
            parts = [trained(part, kv_cache=cache)[0] for part in (first, *chunks, *last.split(1, dim=1))]
        torch.testing.assert_close(torch.cat(parts)[-48:], logits, atol=1e-4, rtol=0)


def test_greedy_tokens_are_the_recorded_ones(golden, trained: GPT) -> None:
    for prompt, expected in zip(golden["prompt_ids"], golden["greedy_tail"], strict=True):
        assert greedy(trained, prompt, len(expected)) == expected


def test_the_first_loss_of_training_agrees_to_1e_4(folder: Path, golden) -> None:
    model = load(folder / "init_state.pt", golden)
    batches = torch.load(folder / "train_batches.pt", weights_only=True)
    with torch.no_grad():
        loss = float(model(batches["inputs"][0], batches["targets"][0]))
    assert loss == pytest.approx(golden["losses"][0], abs=1e-4)


def test_weights_have_the_recorded_names_and_norms(golden, trained: GPT) -> None:
    norms = {name: float(weight.detach().norm()) for name, weight in trained.named_parameters()}
    assert norms == pytest.approx(golden["weight_norms_after"], rel=1e-5)


def test_counts_and_windows_are_the_recorded_ones(golden, trained: GPT) -> None:
    assert sum(weight.numel() for weight in trained.parameters()) == golden["num_params"]
    assert trained.flops_per_token() == golden["flops_per_token"]
    assert [[window, 0] for window in trained.windows] == golden["window_sizes"]
