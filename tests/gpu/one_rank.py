"""Trains a small model for two steps without a process group and with one of one rank; run by torchrun.

`one_rank.py DEVICE SIZES FILE` writes to the file the names of what differs: weights, optimizer state,
losses, gradient norms.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
from torch import distributed

from nanochat.config import OptimizerConfig
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.ranks.rank_group import RankGroup
from nanochat.train.loop import training_steps
from nanochat.train.state import TrainState


def main(device, sizes, file):
    models = _models()
    config, rows = models.configured("2026", sizes), models.SHAPES[sizes].rows
    ends = []
    for grouped in (False, True):
        if grouped:
            distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
        world = RankGroup.current()
        model = models.made(config, device, torch.bfloat16)
        state = TrainState(model, ModelOptimizer(model, OptimizerConfig(), group=world.group), world)
        steps = list(training_steps(state, models.plan(config, rows, 2)))
        numbers = {f"loss {s.step}": s.loss for s in steps} | {f"norm {s.step}": s.grad_norm for s in steps}
        ends.append((numbers, models.tensors(state)))
    (numbers, tensors), (other_numbers, others) = ends
    differ = [name for name, value in numbers.items() if other_numbers[name] != value]
    differ += [name for name, x in tensors.items() if not torch.equal(x, others[name])]
    file.write_text("\n".join(differ), encoding="utf-8")
    distributed.destroy_process_group()


def _models():
    """Import the file beside this one: another package named `tests` may be installed."""
    path = Path(__file__).with_name("models.py")
    spec = importlib.util.spec_from_file_location("gpu_models", path)
    module = sys.modules["gpu_models"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
