"""Small models, what they are trained on, and runs of them: for the tests of whole steps on a device."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nanochat.config import IGNORED, ModelConfig, OptimizerConfig
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.train.loop import Batch, StepResult, TrainingPlan, training_steps
from nanochat.train.state import TrainState

ARCHITECTURES = ("classic", "2026")
DOCUMENT_TOKEN = 0


@dataclass(frozen=True)
class Shape:
    """Sizes of a small model and of its batches."""

    layers: int
    heads: int  # of 128 channels
    length: int
    vocab: int
    rows: int


# Full is d4. The length is more than the short window of 2026, and the vocabulary is prime.
SHAPES = {"full": Shape(4, 2, 512, 5003, 8), "tiny": Shape(2, 1, 150, 307, 3)}


def configured(architecture: str, sizes: str, *, apart: bool = True) -> ModelConfig:
    """Return a small model's shape; that of 2026 has windows and, in full size, shared keys.

    With `apart` its documents do not see each other, which generation knows nothing of.
    """
    shape = SHAPES[sizes]
    new = architecture == "2026"
    return ModelConfig(
        architecture=architecture,
        sequence_len=shape.length,
        vocab_size=shape.vocab,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_kv_head=1 if new else shape.heads,
        n_embd=128 * shape.heads,
        document_token=DOCUMENT_TOKEN if new and apart else None,
    )


def made(
    config: ModelConfig,
    device: str,
    precision: torch.dtype = torch.float32,
    *,
    seed: int = 1,
    noise: float = 0.05,
) -> GPT:
    """Return a model on the device; the noise is where weights start at zero and would hide gradients."""
    model = GPT(config)
    generator = torch.Generator().manual_seed(seed)
    model.init_weights(generator)
    with torch.no_grad():
        for weight in model.parameters():
            weight += torch.empty(weight.shape).normal_(std=noise, generator=generator)
    model.precision = precision
    return model.to(device)


def batch(config: ModelConfig, rows: int, step: int) -> Batch:
    """Return inputs and targets that can be learnt: most tokens follow from the one before.

    The end of every third row is not counted.
    """
    draw = np.random.default_rng(step)
    text = draw.integers(1, config.vocab_size, (rows, config.sequence_len + 1))
    for t in range(1, text.shape[1]):
        follows = draw.random(rows) < 0.8
        text[:, t] = np.where(follows, (7 * text[:, t - 1] + 3) % (config.vocab_size - 1) + 1, text[:, t])
    text[draw.random(text.shape) < 0.02] = DOCUMENT_TOKEN
    targets = text[:, 1:].copy()
    targets[::3, -config.sequence_len // 4 :] = IGNORED
    return text[:, :-1], targets


def plan(config: ModelConfig, rows: int, steps: int, *, same: bool = False) -> TrainingPlan:
    """Return a run of so many steps; `same` takes the same batch each time."""
    return TrainingPlan(
        steps=steps,
        batch_rows=rows,
        longest=config.sequence_len,
        batch=lambda step, part: tuple(x[part] for x in batch(config, rows, 0 if same else step)),
        lr_multiplier=lambda step: 1.0,
        momentum=lambda step: 0.9,
    )


def started(model: GPT) -> TrainState:
    """Return the model before its first step."""
    return TrainState(model, ModelOptimizer(model, OptimizerConfig()))


def tensors(state: TrainState) -> dict[str, Tensor]:
    """Return weights and optimizer state by name, on the CPU."""
    kept = state.optimizer.state_dict()["parameters"]
    moments = {f"{name}, {key}": x for name, of in kept.items() for key, x in of.items()}
    return moments | {name: x.cpu() for name, x in state.model.state_dict().items()}


@functools.cache
def learnt(architecture: str, sizes: str, device: str) -> GPT:
    """Return a model that has learnt a little, so that its likeliest token is ahead of the others."""
    model = made(configured(architecture, sizes, apart=False), device, torch.bfloat16)
    trained(model, SHAPES[sizes].rows, 20)
    return model


def trained(model: GPT, rows: int, steps: int) -> list[StepResult]:
    """Train a model in place; return what each step measured."""
    return list(training_steps(started(model), plan(model.config, rows, steps)))
