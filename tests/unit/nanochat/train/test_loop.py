"""How a batch is cut into passes, and that the cut does not change what is computed."""

from __future__ import annotations

import contextlib
import errno
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.errors import TrainingError
from nanochat.model.gpt import GPT
from nanochat.model.reproducible import cpu_threads
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.runtime import FolderRestartPoints, Runtime
from nanochat.train.hooks import Keeper
from nanochat.train.loop import Cut, TrainingPlan, accumulate_gradients, micro_batches, training_steps
from nanochat.train.state import TrainState
from tests.support.limits import limited

TINY = ModelConfig(sequence_len=24, vocab_size=97, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)


def model() -> GPT:
    made = GPT(TINY)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.2, generator=generator))
    return made


def padded_batch() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    inputs, targets = draw.integers(0, 97, (7, 24)), draw.integers(0, 97, (7, 24))
    for row, end in enumerate((24, 3, 0, 17, 9, 9, 20)):
        targets[row, end:] = -1
    targets[:, :2] = -1
    return inputs, targets


def test_every_target_is_in_one_pass_and_padding_is_cut() -> None:
    inputs, targets = padded_batch()
    passes = list(micro_batches(inputs, targets, "cpu", Cut(rows=2)))
    assert [t.shape for _, t in passes] == [(2, 24), (2, 17), (2, 9)]
    seen = sorted(np.concatenate([t[t != -1] for _, t in passes]).tolist())
    assert seen == sorted(targets[targets != -1].tolist())


@pytest.mark.parametrize("rows", [None, 1, 2, 3])
def test_loss_and_gradients_do_not_depend_on_the_cut(rows: int | None) -> None:
    inputs, targets = padded_batch()
    whole, cut = model(), model()
    expected = whole(torch.from_numpy(inputs), torch.from_numpy(targets))
    expected.backward()
    loss = accumulate_gradients(cut, inputs, targets, Cut(rows=rows))
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("limit", [1e-3, 1e9, None])
def test_clipping_limits_the_norm_of_all_gradients_together(limit: float | None) -> None:
    made = model()
    optimizer = ModelOptimizer(made, OptimizerConfig(grad_clip=limit))
    accumulate_gradients(made, *padded_batch())
    before = torch.cat([p.grad.flatten() for p in made.parameters()]).norm()
    assert float(optimizer.clip()) == pytest.approx(float(before), rel=1e-5)
    after = float(torch.cat([p.grad.flatten() for p in made.parameters()]).norm())
    assert after == pytest.approx(float(before) if limit != 1e-3 else 1e-3, rel=1e-3)


def test_learning_rates_of_embedding_and_head_fall_with_the_width() -> None:
    made = model()
    start = {name: weight.detach().clone() for name, weight in made.named_parameters()}
    optimizer = ModelOptimizer(made, OptimizerConfig(), lr_factor=0.5)
    accumulate_gradients(made, *padded_batch())
    optimizer.step(0.25, 0.95)
    factor = 0.5 * 0.25 * (32 / 768) ** -0.5
    for name, lr in (("transformer.wte.weight", 0.2), ("lm_head.weight", 0.004)):
        moved = (made.get_parameter(name).detach() - start[name]).abs().max()
        assert float(moved) == pytest.approx(lr * factor, rel=1e-3)  # AdamW's first step is the rate itself


def test_the_number_of_threads_is_put_back() -> None:
    former = torch.get_num_threads()
    with pytest.raises(KeyError), cpu_threads(former + 1):
        assert torch.get_num_threads() == former + 1
        raise KeyError
    assert torch.get_num_threads() == former


@pytest.mark.parametrize("rows", [0, 3])
def test_a_batch_without_rows_or_targets_gives_gradients_of_zero(rows: int) -> None:
    made = model()
    inputs, targets = np.zeros((rows, 24), np.int64), np.full((rows, 24), -1)
    reduced = []

    @contextlib.contextmanager
    def reducing():
        yield
        reduced.append(True)

    assert accumulate_gradients(made, inputs, targets, last=reducing) == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in made.parameters())
    assert reduced == [True]


def test_gradients_are_reduced_in_the_last_pass_alone() -> None:
    made, seen = model(), []

    @contextlib.contextmanager
    def reducing():
        seen.append(made.lm_head.weight.grad is not None)
        yield

    accumulate_gradients(made, *padded_batch(), Cut(rows=2), last=reducing)
    assert seen == [True]


def short_plan() -> TrainingPlan:
    return TrainingPlan(
        steps=4,
        batch_rows=7,
        longest=24,
        batch=lambda step, rows: padded_batch(),
        lr_multiplier=lambda step: 0.1,
        momentum=lambda step: 0.9,
    )


def test_the_weights_of_a_step_that_is_not_finite_are_never_kept(tmp_path: Path) -> None:
    plan = short_plan()
    state = TrainState(made := model(), ModelOptimizer(made, OptimizerConfig()))
    runtime = Runtime(restart_points=FolderRestartPoints(tmp_path), restart_point_every_s=0.0)
    keeper, steps = Keeper(state, runtime, {}, plan.steps), training_steps(state, plan)
    for result in (next(steps), next(steps)):
        keeper(result)
    kept = made.lm_head.weight.detach().clone()
    with torch.no_grad():
        made.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="loss is nan in step 3; last restart point: step 2"):
        next(steps)
    assert not made.lm_head.weight.isfinite().all()
    assert state.step == 2 and state.restore(runtime.restart_points, {})
    assert torch.equal(made.lm_head.weight, kept)


def test_a_run_that_a_full_disk_ended_continues_to_the_same_weights(tmp_path: Path) -> None:
    plan, runtime = (
        short_plan(),
        Runtime(restart_points=FolderRestartPoints(tmp_path), restart_point_every_s=0),
    )
    undisturbed = TrainState(whole := model(), ModelOptimizer(whole, OptimizerConfig()))
    list(training_steps(undisturbed, plan))

    state = TrainState(made := model(), ModelOptimizer(made, OptimizerConfig()))
    keeper, steps = Keeper(state, runtime, {}, plan.steps), training_steps(state, plan)
    keeper(next(steps))
    with limited(resource.RLIMIT_FSIZE, 10_000), pytest.raises(OSError, match=r"state\.pt") as refused:
        keeper(next(steps))
    assert refused.value.errno == errno.EFBIG

    again = TrainState(other := model(), ModelOptimizer(other, OptimizerConfig()))
    assert again.restore(runtime.restart_points, {}) and again.step == 1
    list(training_steps(again, plan))
    for name, weight in whole.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight), name
