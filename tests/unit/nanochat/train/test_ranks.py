"""Several ranks train as one process does: the same batches, losses and stops, whatever their number."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from nanochat.config import ModelConfig, OptimizerConfig, PretrainConfig
from nanochat.errors import Interrupted, TrainingError
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import FolderRestartPoints, NoRestartPoints, NullTracker, Runtime
from nanochat.train.loop import Cut, StepResult, TrainingPlan, training_steps
from nanochat.train.pretrain import pretrain
from nanochat.train.state import TrainState
from tests.support.ranks import on_ranks

pytestmark = pytest.mark.xdist_group("ranks")

TINY = ModelConfig(sequence_len=24, vocab_size=97, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)
PRETRAIN = PretrainConfig(
    model=ModelConfig(sequence_len=48, vocab_size=265, n_layer=1, n_head=2, n_kv_head=1, n_embd=32),
    batch_tokens=240,  # 5 rows
    steps=7,
    eval_every=3,
    eval_tokens=500,
    sample_every=4,
    prompts=("red é",),
)


def global_batch(step: int, batch_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of many lengths; step 1 has no targets in its first half, step 2 has none at all."""
    draw = np.random.default_rng(step)
    inputs, targets = (draw.integers(0, 97, (batch_rows, 24)) for _ in range(2))
    for row in range(batch_rows):
        targets[row, draw.integers(4, 25) :] = -1
    if step == 1:
        targets[: (batch_rows + 1) // 2] = -1
    if step == 2:
        targets[:] = -1
    return inputs, targets


def started(broken_rank: int | None, weight: float) -> TrainState:
    world = RankGroup.current()
    model = GPT(TINY)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.empty(parameter.shape).normal_(std=0.2, generator=generator))
        if world.rank == broken_rank:
            model.lm_head.weight[3, 3] = weight
    return TrainState(model, ModelOptimizer(model, OptimizerConfig(), group=world.group), world)


def train_tiny(
    batch_rows: int, broken_rank: int | None = None, weight: float = 0.0
) -> tuple[list[StepResult], list[np.ndarray]]:
    """Train four steps; return what they measured and the inputs this rank saw.

    The broken rank has one weight of its own.
    """
    seen: list[np.ndarray] = []

    def batch(step: int, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        inputs, targets = (whole[rows] for whole in global_batch(step, batch_rows))
        seen.append(inputs)
        return inputs, targets

    plan = TrainingPlan(
        steps=4,
        batch_rows=batch_rows,
        longest=24,
        batch=batch,
        lr_multiplier=lambda step: 0.5,
        momentum=lambda step: 0.9,
    )
    return list(training_steps(started(broken_rank, weight), plan, Cut(rows=2))), seen


@pytest.mark.parametrize(("size", "batch_rows"), [(2, 7), (3, 2)])
def test_ranks_train_as_one_process_on_the_same_global_batches(size: int, batch_rows: int) -> None:
    alone, _ = train_tiny(batch_rows)
    together = on_ranks(size, train_tiny, batch_rows)
    for step in range(4):
        seen = np.concatenate([inputs[step] for _, inputs in together])
        assert np.array_equal(seen, global_batch(step, batch_rows)[0])
    for results, _ in together:
        # The first step differs by the order of float32 sums alone, later ones by what Muon makes of that.
        assert results[0].loss == pytest.approx(alone[0].loss, rel=1e-6)
        assert results[0].grad_norm == pytest.approx(alone[0].grad_norm, rel=1e-5)
        assert [r.loss for r in results] == pytest.approx([r.loss for r in alone], rel=1e-2)
        assert [r.tokens for r in results] == [r.tokens for r in alone]
        assert (results[2].loss, results[2].grad_norm, results[2].tokens) == (0.0, 0.0, 0)
        assert [r.loss for r in results] == [r.loss for r in together[0][0]]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (math.nan, "loss is nan in step 1 on rank 1 of 2; last restart point: none"),
        # Logits are capped, so the loss does not show it.
        (math.inf, "gradient norm is nan in step 1 over the sum of 2 ranks; last restart point: none"),
    ],
)
def test_what_is_not_finite_on_one_rank_stops_all(weight: float, message: str) -> None:
    for error in on_ranks(2, train_tiny, 7, 1, weight):
        assert isinstance(error, TrainingError)
        assert str(error) == message


class StopAt(NullTracker):
    """Asks its own rank to stop after a step."""

    def __init__(self, step: int | None) -> None:
        self.step, self.stop = step, threading.Event()

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        if step == self.step:
            self.stop.set()


def pretrain_on_rank(root: Path, out: Path, stop_at: int | None, keep: Path | None) -> dict[str, object]:
    """Pretrain; the last rank alone is asked to stop after a step."""
    world = RankGroup.current()
    tracker = StopAt(stop_at if world.rank == world.size - 1 else None)
    out.mkdir(exist_ok=True)
    runtime = Runtime(
        threads=1,
        tracker=tracker,
        stop=tracker.stop,
        restart_points=FolderRestartPoints(keep) if keep else NoRestartPoints(),
    )
    return pretrain(
        PRETRAIN, {n: root / n for n in ("tokenizer", "train_tokens", "val_tokens")}, out, runtime
    )


def killed_and_continued(root: Path, folder: Path) -> list[str]:
    """Run whole; run until a stop and go on; run until a stop. Return the messages of the stops."""
    pretrain_on_rank(root, folder / "whole", None, None)
    said = []
    for name in ("stopped", "left"):
        try:
            pretrain_on_rank(root, folder / name, 3, folder / f"{name}-restart")
        except Interrupted as error:
            said.append(str(error))
    torch.distributed.barrier()
    pretrain_on_rank(root, folder / "stopped", None, folder / "stopped-restart")
    return said


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "throughput.jsonl"}


def test_a_stop_on_one_rank_stops_all_and_any_number_of_ranks_goes_on(
    stage_inputs: Path, tmp_path: Path
) -> None:
    for said in on_ranks(2, killed_and_continued, stage_inputs, tmp_path):
        assert said == ["stopped after step 3 of 7; step 3 is kept"] * 2
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    pretrain_on_rank(stage_inputs, tmp_path / "left", None, tmp_path / "left-restart")
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("left", "whole")
    )
    for other, line in zip(one, two, strict=True):
        assert other.keys() == line.keys()
        # Batches are the same; sums are added in another order, and Muon makes more of that with each step.
        assert other == pytest.approx(line, rel=2e-2)
