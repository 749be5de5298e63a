"""Memory that does not suffice: found before the first step, with the number of rows that fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.errors import TrainingError
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.train.loop import Cut, TrainingPlan, training_steps
from nanochat.train.micro_batch import fitting_cut, out_of_memory_explained
from nanochat.train.state import TrainState

TINY = ModelConfig(sequence_len=24, vocab_size=97, n_layer=1, n_head=2, n_kv_head=2, n_embd=32)
REFUSALS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried …"),
)


@dataclass
class Memory:
    """A device that holds a number of rows of a pass and no more."""

    refusal: RuntimeError
    rows: int = 10_000

    def limit(self, model: GPT) -> None:
        forward = model.forward

        def limited(idx: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
            if idx.size(0) > self.rows:
                raise self.refusal
            return forward(idx, *arguments, **named)

        model.forward = limited


def batch(step: int, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(step)
    return draw.integers(0, 97, (13, 24))[rows], draw.integers(0, 97, (13, 24))[rows]


PLAN = TrainingPlan(
    steps=3,
    batch_rows=13,
    longest=24,
    batch=batch,
    lr_multiplier=lambda step: 1.0,
    momentum=lambda step: 0.9,
)


@pytest.fixture(params=REFUSALS, ids=["gpu", "cpu"])
def memory(request: pytest.FixtureRequest) -> Memory:
    return Memory(request.param)


@pytest.fixture
def state(memory: Memory) -> TrainState:
    model = GPT(TINY)
    model.init_weights(torch.Generator().manual_seed(0))
    memory.limit(model)
    return TrainState(model, ModelOptimizer(model, OptimizerConfig()))


def test_what_was_asked_for_is_refused_with_the_number_of_rows_that_fit(
    state: TrainState, memory: Memory
) -> None:
    memory.rows = 5
    with pytest.raises(TrainingError, match="pass of 13 rows x 24 tokens is too large for cpu") as caught:
        fitting_cut(state, PLAN, 100)
    assert caught.value.hint == "use --micro-batch-rows 3"
    assert fitting_cut(state, PLAN, 3) == Cut(rows=3)


def test_by_itself_a_pass_is_halved_until_it_fits(state: TrainState, memory: Memory) -> None:
    assert fitting_cut(state, PLAN) == Cut()
    memory.rows = 5
    cut = fitting_cut(state, PLAN)
    assert cut.rows_of(24, "cpu") == 3
    assert [result.step for result in training_steps(state, PLAN, cut)] == [1, 2, 3]


def test_a_single_row_that_does_not_fit_ends_the_run(state: TrainState, memory: Memory) -> None:
    memory.rows = 0
    with pytest.raises(TrainingError, match="one row x 24 tokens does not fit") as caught:
        fitting_cut(state, PLAN)
    assert "smaller depth" in (caught.value.hint or "")


def test_trying_leaves_no_trace(state: TrainState, memory: Memory) -> None:
    weights = {name: weight.clone() for name, weight in state.model.state_dict().items()}
    random, optimizer = torch.get_rng_state(), state.optimizer.state_dict()
    memory.rows = 5
    fitting_cut(state, PLAN)
    assert all(p.grad is None for p in state.model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    for name, weight in state.model.state_dict().items():
        assert torch.equal(weight, weights[name])
    assert str(state.optimizer.state_dict()) == str(optimizer)


def test_a_refusal_in_a_later_step_says_what_to_try(state: TrainState, memory: Memory) -> None:
    def fill_up() -> None:
        for result in training_steps(state, PLAN, Cut(rows=6)):
            memory.rows = 4 if result.step == 2 else 6

    with pytest.raises(TrainingError, match="in step 3 on rank 0 of 1: a pass of 6 rows") as caught, (
        out_of_memory_explained(state, PLAN, Cut(rows=6))
    ):  # fmt: skip
        fill_up()
    assert caught.value.hint == "use --micro-batch-rows 3"


def test_another_error_is_not_taken_for_a_lack_of_memory(state: TrainState, memory: Memory) -> None:
    memory.rows, memory.refusal = 5, RuntimeError("shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shapes"):
        fitting_cut(state, PLAN)
