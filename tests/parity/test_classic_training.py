"""Twelve training steps against those recorded from upstream nanochat of October 2025 (CPU, float32).

Both iterate in bfloat16. Upstream adds the gradient norm up in float32, here it is float64, so that it does
not depend on the number of processes; clipping with a norm that differs in its last bit changes some
roundings to bfloat16, and the losses in their fourth digit. With upstream's norm the recording is repeated.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.evals.bpb import bits_per_byte
from nanochat.model.checkpoint import model_from_state
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.optim.schedules import rising_momentum
from nanochat.train.loop import Cut, TrainingPlan, training_steps
from nanochat.train.state import TrainState
from tests.support.recorded_sums import compute_as_recorded, skip_unless_as_recorded


@pytest.fixture(scope="module")
def folder(shared_golden: Path) -> Path:
    return shared_golden / "nanochat-2025-10"


@pytest.fixture(scope="module")
def golden(folder: Path):
    return json.loads((folder / "golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def batches(folder: Path):
    recorded = torch.load(folder / "train_batches.pt", weights_only=True)
    return recorded["inputs"].long().numpy(), recorded["targets"].long().numpy()


def train(folder: Path, golden, batches, kind: type[ModelOptimizer], rows: int | None = None):
    path = folder / "init_state.pt"
    config = ModelConfig(**golden["config"])
    model = model_from_state(config, torch.load(path, weights_only=True), source=str(path))
    state = TrainState(model, kind(model, OptimizerConfig()))
    inputs, targets = batches
    plan = TrainingPlan(
        steps=12,
        batch_rows=inputs.shape[1],
        longest=inputs.shape[2],
        batch=lambda step, rows: (inputs[step, rows], targets[step, rows]),
        lr_multiplier=lambda step: 1.0,
        momentum=rising_momentum,
    )
    return state, list(training_steps(state, plan, Cut(rows=rows)))


def weight_norms(state: TrainState) -> dict[str, float]:
    return {name: float(weight.detach().norm()) for name, weight in state.model.named_parameters()}


class UpstreamsNorm(ModelOptimizer):
    """Adds the gradient norm up as upstream does."""

    def clip(self) -> torch.Tensor:
        weights = [shard.weight for shard in self._sharding.shards.values()]
        return torch.nn.utils.clip_grad_norm_(weights, 1.0)


@pytest.fixture(scope="module", params=[None, 1, 3], ids=["default passes", "1 row a pass", "3 rows a pass"])
def trained(folder: Path, golden, batches, request: pytest.FixtureRequest):
    return train(folder, golden, batches, ModelOptimizer, request.param)


def test_with_upstreams_operations_the_run_is_the_recorded_one(
    folder: Path, golden, batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_unless_as_recorded()
    compute_as_recorded(monkeypatch)
    state, results = train(folder, golden, batches, UpstreamsNorm)
    assert [result.loss for result in results] == pytest.approx(golden["losses"], abs=1e-6)
    assert [result.grad_norm for result in results] == pytest.approx(golden["grad_norms"], abs=1e-6)
    assert weight_norms(state) == pytest.approx(golden["weight_norms_after"], rel=1e-6)


def test_losses_follow_the_recorded_ones(golden, trained) -> None:
    losses = [result.loss for result in trained[1]]
    assert losses[:3] == pytest.approx(golden["losses"][:3], abs=1e-4)
    assert losses[:9] == pytest.approx(golden["losses"][:9], abs=2e-3)
    assert losses == pytest.approx(golden["losses"], abs=1e-2)  # the tenth batch is the most sensitive


def test_gradient_norms_follow_the_recorded_ones(golden, trained) -> None:
    norms = [result.grad_norm for result in trained[1]]
    assert norms[:3] == pytest.approx(golden["grad_norms"][:3], abs=2e-4)
    assert norms == pytest.approx(golden["grad_norms"], rel=5e-3)


def test_weight_norms_after_training_are_the_recorded_ones(golden, trained) -> None:
    assert weight_norms(trained[0]) == pytest.approx(golden["weight_norms_after"], rel=2e-3)


def test_bits_per_byte_is_the_recorded_one(folder: Path, golden, batches) -> None:
    path = folder / "chatsft_checkpoints/d3/model_000650.pt"
    config = ModelConfig(**golden["config"])
    model = model_from_state(config, torch.load(path, weights_only=True), source=str(path))
    token_bytes = torch.load(folder / "tokenizer/token_bytes.pt", weights_only=True).numpy()
    pairs = list(zip(*batches, strict=True))[:6]
    assert bits_per_byte(model, pairs, token_bytes) == pytest.approx(golden["bpb_first_6_batches"], abs=1e-4)
