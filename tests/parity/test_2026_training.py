"""Eight training steps against those recorded from upstream nanochat of July 2026 (CPU, float32).

Upstream iterates in its compute type, float32 on that CPU; here it is bfloat16 everywhere. And whatever the
type, this recording repeats itself only bit for bit: all blocks put out zero in the first step, where the
factors of the residual stream only scale what is normalised afterwards. Their gradients are rounding noise,
of which AdamW makes full steps of 0.5. It had two threads; with one, upstream itself ends its seventh step
0.32 off its recording. So there are two tests: the recorded arithmetic to the last digits, on machines that
add up as the recording's did; and ours, as far as both are the same run.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.model.checkpoint import model_from_state
from nanochat.model.gpt import GPT
from nanochat.reproducible import cpu_threads
from nanochat.train import muon
from nanochat.train.loop import Plan, training_steps
from nanochat.train.optimizer import ModelOptimizer
from nanochat.train.schedules import fixed_momentum
from nanochat.train.state import TrainState
from tests.recorded_sums import compute_as_recorded, skip_unless_as_recorded


@pytest.fixture(scope="module")
def folder(shared_golden: Path) -> Path:
    return shared_golden / "nanochat-2026-07"


@pytest.fixture(scope="module")
def golden(folder: Path):
    return json.loads((folder / "golden.json").read_text(encoding="utf-8"))


def train(folder: Path, golden) -> tuple[GPT, list[float]]:
    path = folder / "init_state.pt"
    config = ModelConfig(architecture="2026", **golden["config"])
    model = model_from_state(config, torch.load(path, weights_only=True), source=str(path))
    # The recording took the learning rates that upstream's model has by default, not those of its recipe.
    optimizer = OptimizerConfig(weight_decay=golden["optimizer_weight_decay"], grad_clip=None)
    recorded = torch.load(folder / "train_batches.pt", weights_only=True)
    inputs, targets = recorded["inputs"].long().numpy(), recorded["targets"].long().numpy()
    plan = Plan(
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


def test_the_recorded_arithmetic_gives_the_recorded_run(
    folder: Path, golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_unless_as_recorded()
    compute_as_recorded(monkeypatch)
    monkeypatch.setattr(muon, "multiplies_bfloat16", lambda device_type: False)
    monkeypatch.setattr(muon, "_rounded", lambda x: x)  # hence float32
    with cpu_threads(2):
        model, losses = train(folder, golden)
    assert losses[:6] == pytest.approx(golden["losses"][:6], abs=1e-6)
    # After the jump of the loss by 1.5 in step 7: 1e-5 was seen.
    assert losses[6:] == pytest.approx(golden["losses"][6:], abs=1e-4)
    assert norms(model) == pytest.approx(golden["weight_norms_after"], rel=1e-4)


def test_bfloat16_follows_the_recorded_run_until_it_jumps(folder: Path, golden) -> None:
    model, losses = train(folder, golden)
    # Seen: 1e-4 in the first three steps (8e-4 with our own operations in the place of torch's), then 8e-3.
    assert losses[:3] == pytest.approx(golden["losses"][:3], abs=2e-3)
    assert losses[3:6] == pytest.approx(golden["losses"][3:6], abs=1.5e-2)
    # The jump itself hangs on rounding: seen were 0.04 to 0.47 off, and 0.32 between one and two threads of
    # the recorded code.
    assert losses[6] - losses[5] == pytest.approx(golden["losses"][6] - golden["losses"][5], abs=1.0)
    assert losses[7] < losses[6] - 0.5
    ours = norms(model)
    large = {name: norm for name, norm in golden["weight_norms_after"].items() if norm > 5}
    assert len(large) == 20  # embeddings, head, and the matrices that do not start at zero
    assert {name: ours[name] for name in large} == pytest.approx(large, rel=0.15)  # 0.07 was seen
