"""Eight training steps against those recorded from upstream nanochat of July 2026 (CPU, float32).

Upstream iterates in its compute type, float32 on that CPU; here it is bfloat16 everywhere. So there are two
tests: with float32 iterations the run is the recorded one to the last digits; ours stays as near to it as
rounding to bfloat16 allows.

Both start without zeros. From upstream's own start, where all blocks put out zero, the first gradients of
some scalars are rounding noise, of which AdamW makes full steps of 0.5: such a run repeats itself only on one
machine with one number of threads. Bounds here hold for all: "seen" is the worst of one to three threads and
of kernels for SSE4.1, AVX2 and AVX-512, in torch, oneDNN and MKL.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.model.checkpoint import model_from_state
from nanochat.model.gpt import GPT
from nanochat.optim import muon
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.optim.schedules import fixed_momentum
from nanochat.train.loop import TrainingPlan, training_steps
from nanochat.train.state import TrainState


@pytest.fixture(scope="module")
def folder(shared_golden: Path) -> Path:
    return shared_golden / "nanochat-2026-07"


@pytest.fixture(scope="module")
def golden(folder: Path):
    return json.loads((folder / "golden_nonzero.json").read_text(encoding="utf-8"))


def train(folder: Path, golden) -> tuple[GPT, list[float]]:
    path = folder / "init_state_nonzero.pt"
    shape = json.loads((folder / "golden.json").read_text(encoding="utf-8"))["config"]
    config = ModelConfig(architecture="2026", **shape)
    model = model_from_state(config, torch.load(path, weights_only=True), source=str(path))
    # The recording took the learning rates that upstream's model has by default, not those of its recipe.
    optimizer = OptimizerConfig(weight_decay=golden["optimizer_weight_decay"], grad_clip=None)
    recorded = torch.load(folder / "train_batches.pt", weights_only=True)
    inputs, targets = recorded["inputs"].long().numpy(), recorded["targets"].long().numpy()
    plan = TrainingPlan(
        steps=8,
        batch_rows=inputs.shape[1],
        longest=inputs.shape[2],
        batch=lambda step, rows: (inputs[step, rows], targets[step, rows]),
        lr_multiplier=lambda step: 1.0,
        momentum=fixed_momentum,
    )
    state = TrainState(model, ModelOptimizer(model, optimizer))
    return model, [result.loss for result in training_steps(state, plan)]


def norms(model: GPT) -> dict[str, float]:
    return {name: float(weight.detach().norm()) for name, weight in model.named_parameters()}


def test_with_float32_iterations_the_run_is_the_recorded_one(
    folder: Path, golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "multiplies_bfloat16", lambda device_type: False)
    monkeypatch.setattr(muon, "_rounded", lambda x: x)
    model, losses = train(folder, golden)
    assert losses == pytest.approx(golden["losses"], rel=0, abs=1e-5)  # 2e-6 was seen
    # Upstream's own norms differ by 5e-5 between one and two threads. The scalars have the absolute bound
    # (4e-6 was seen): AdamW's steps are as large when they come near to zero. All else: 2e-6, relative.
    assert norms(model) == pytest.approx(golden["weight_norms_after"], rel=5e-5, abs=1e-5)


@pytest.mark.parametrize("native", [True, False], ids=["bfloat16 products", "rounded float32 products"])
def test_with_bfloat16_iterations_the_run_follows_the_recorded_one(
    native: bool, folder: Path, golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "multiplies_bfloat16", lambda device_type: native)
    model, losses = train(folder, golden)
    assert losses == pytest.approx(golden["losses"], rel=0, abs=2e-3)  # 4e-4 was seen
    # 2e-3 relative was seen, and 3e-3 absolute for the scalars.
    assert norms(model) == pytest.approx(golden["weight_norms_after"], rel=5e-3, abs=1e-2)
