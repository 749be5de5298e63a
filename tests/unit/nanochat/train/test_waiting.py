"""What a step makes the host wait for, on tensors without memory: whoever reads one by accident fails."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.train.feed import Feed
from nanochat.train.loop import Cut, TrainingPlan, training_steps
from nanochat.train.state import TrainState


class Watch(TorchDispatchMode):
    """Notes in which order the device is given work and read, and what crosses over from the host."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.crossings: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        kinds = {x.device.type for x in tree_leaves((args, kwargs, made)) if isinstance(x, torch.Tensor)}
        self.events += ["work"] if kinds == {"meta"} else []
        self.crossings += [str(func)] if len(kinds) > 1 else []
        return made

    def read(self, tensor: torch.Tensor) -> list[float]:
        self.events.append("read")
        return [1.0] * tensor.numel()


def batch(step: int, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(step).integers(0, 97, (7, 24))
    return tokens[rows], tokens[rows]


@pytest.mark.parametrize("architecture", ["classic", "2026"])
def test_a_step_waits_for_its_device_once_after_all_of_its_work_is_queued(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"sequence_len": 24, "vocab_size": 97, "n_layer": 2, "n_head": 2, "n_kv_head": 2, "n_embd": 32}
    with torch.device("meta"):
        model = GPT(ModelConfig(architecture=architecture, document_token=5, **shape))
    state = TrainState(model, ModelOptimizer(model, OptimizerConfig(grad_clip=1.0, weight_decay=0.1)))
    plan = TrainingPlan(
        steps=2,
        batch_rows=7,
        longest=24,
        batch=batch,
        lr_multiplier=lambda step: 0.5,
        momentum=lambda step: 0.9,
        weight_decay=lambda step: 0.5,
    )
    # There is no autocast for tensors without memory; which type is computed in does not matter here.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    with Watch() as watch:
        monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: watch.read(tensor))
        for _ in training_steps(state, plan, Cut(rows=3)):
            assert watch.events.count("read") == 1
            assert watch.events[-1] == "read" and watch.events.count("work") > 100
            watch.events.clear()
    assert state.step == 2
    assert watch.crossings == []


def test_on_a_cpu_a_batch_is_not_copied() -> None:
    inputs, targets = batch(0, slice(None))
    [(x, y)] = Feed(torch.device("cpu")).send([(inputs, targets)]).received()
    assert (x.data_ptr(), y.data_ptr()) == (inputs.ctypes.data, targets.ctypes.data)
