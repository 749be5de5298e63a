"""The numbers are those of PyTorch's own AdamW, to the last bit; its compiler stays out of memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from nanochat.optim.adamw import AdamW, ParameterGroup


def made(seed: int = 0) -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"a": (7, 3), "b": (5,), "c": (1,)}
    return {name: torch.nn.Parameter(torch.randn(size, generator=generator)) for name, size in sizes.items()}


def put_gradients(weights: dict[str, torch.nn.Parameter], step: int) -> None:
    for weight, other in zip(weights.values(), made(step + 1).values(), strict=True):
        weight.grad = other.detach().clone()


def test_three_steps_are_those_of_torch() -> None:
    ours, theirs = made(), made()
    settings = {"a": (0.1, (0.8, 0.95), 0.0), "b": (0.01, (0.9, 0.995), 0.3), "c": (0.5, (0.96, 0.95), 0.0)}
    groups = [
        ParameterGroup(weights={name: ours[name]}, lr=lr, betas=betas, weight_decay=decay)
        for name, (lr, betas, decay) in settings.items()
    ]
    optimizer = AdamW([*groups, ParameterGroup(weights={}, lr=1.0, betas=(0.9, 0.9), weight_decay=0.0)])
    reference = torch.optim.AdamW(
        [
            {"params": [theirs[name]], "lr": lr * 0.5, "betas": betas, "weight_decay": decay}
            for name, (lr, betas, decay) in settings.items()
        ],
        eps=1e-10,
        fused=True,
    )
    for step in range(3):
        put_gradients(ours, step)
        put_gradients(theirs, step)
        optimizer.step(0.5)
        reference.step()
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name
        assert torch.equal(optimizer.state()[name]["exp_avg_sq"], reference.state[theirs[name]]["exp_avg_sq"])


def test_a_weight_without_gradient_is_named() -> None:
    weights = made()
    with pytest.raises(ValueError, match="a has no gradient"):
        AdamW([ParameterGroup(weights=weights, lr=0.1, betas=(0.9, 0.9), weight_decay=0.0)]).step(1.0)


def test_a_step_of_training_does_not_import_the_compiler() -> None:
    program = """
import sys, numpy, torch
from nanochat.config import ModelConfig, OptimizerConfig
from nanochat.model.gpt import GPT
from nanochat.train.loop import accumulate_gradients
from nanochat.optim.optimizer import ModelOptimizer
model = GPT(ModelConfig(sequence_len=8, vocab_size=33, n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
model.init_weights(torch.Generator().manual_seed(0))
optimizer = ModelOptimizer(model, OptimizerConfig())
tokens = numpy.zeros((2, 8), numpy.int64)
accumulate_gradients(model, tokens, tokens)
optimizer.clip()
optimizer.step(1.0, 0.9)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
