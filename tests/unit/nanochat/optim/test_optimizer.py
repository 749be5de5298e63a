"""Which parameters are trained how, by architecture."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer

WIDTH_FACTOR = (48 / 768) ** -0.5  # 4


class Launches(TorchDispatchMode):
    """Counts operations."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def model(architecture: str, layers: int = 3) -> GPT:
    sizes = {"sequence_len": 16, "vocab_size": 65, "n_layer": layers, "n_head": 2, "n_kv_head": 2}
    sizes["n_embd"] = 48
    made = GPT(ModelConfig(architecture=architecture, **sizes))
    made.init_weights(torch.Generator().manual_seed(0))
    return made


def groups(architecture: str, config: OptimizerConfig) -> dict[str, tuple[object, ...]]:
    """Return rate, betas and decay of each parameter that AdamW trains."""
    optimizer = ModelOptimizer(model(architecture), config, lr_factor=0.5)
    return {
        name: (pytest.approx(group.lr), group.betas, group.weight_decay)
        for group in optimizer._adamw.groups
        for name in group.weights
    }


def test_classic_has_one_setting_for_embedding_and_head() -> None:
    assert groups("classic", OptimizerConfig(weight_decay=0.3)) == {
        "transformer.wte.weight": (0.2 * WIDTH_FACTOR * 0.5, (0.8, 0.95), 0.3),
        "lm_head.weight": (0.004 * WIDTH_FACTOR * 0.5, (0.8, 0.95), 0.3),
    }


def test_2026_has_a_setting_for_each_kind() -> None:
    value_embeds = (0.3 * WIDTH_FACTOR * 0.5 * 0.5, (0.8, 0.995), 0.01)
    smear = (0.2 * 0.5, (0.8, 0.95), 0.0)
    config = OptimizerConfig(embedding_lr=0.3, unembedding_lr=0.008, scalar_lr=0.6, weight_decay=0.3)
    assert groups("2026", config) == {
        "transformer.wte.weight": (0.3 * WIDTH_FACTOR * 0.5, (0.8, 0.995), 0.001),
        "lm_head.weight": (0.008 * WIDTH_FACTOR * 0.5, (0.8, 0.96), 0.01),
        "value_embeds.0.weight": value_embeds,
        "value_embeds.2.weight": value_embeds,
        "resid_lambdas": (0.006 * 0.5, (0.8, 0.95), 0.05),
        "x0_lambdas": (0.6 * 0.5, (0.96, 0.95), 0.0),
        "smear_gate.weight": smear,
        "smear_lambda": smear,
        "backout_lambda": smear,
    }


@pytest.mark.parametrize(("architecture", "decays"), [("classic", False), ("2026", True)])
def test_matrices_decay_in_2026_only_and_as_scheduled(architecture: str, decays: bool) -> None:
    ends = []
    for multiplier in (0.0, 1.0):
        made = model(architecture)
        optimizer = ModelOptimizer(made, OptimizerConfig(weight_decay=0.3))
        for parameter in made.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(1.0, 0.9, multiplier)
        ends.append(made.get_parameter("transformer.h.1.mlp.c_fc.weight").detach())
    assert torch.equal(*ends) is not decays


@pytest.mark.parametrize("architecture", ["classic", "2026"])
def test_depth_adds_no_operations_to_an_optimizer_step(architecture: str) -> None:
    counts = []
    for layers in (4, 6):
        with torch.device("meta"):  # what runs on a GPU; operations on a CPU are cut into smaller ones
            made = model(architecture, layers)
        optimizer = ModelOptimizer(made, OptimizerConfig(weight_decay=0.3, grad_clip=1.0))
        for parameter in made.parameters():
            parameter.grad = torch.empty_like(parameter)
        with Launches() as launches:
            optimizer.clip()
            optimizer.step(1.0, 0.9)
        counts.append(launches.count)
    assert 100 < counts[0] == counts[1]
