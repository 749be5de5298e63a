"""The weights a model starts training with, drawn as upstream nanochat does for each architecture.

All come from one CPU generator in the order of the parameters: the same weights on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nanochat.config import ModelConfig


@torch.no_grad()
def init_classic(model: nn.Module, generator: torch.Generator) -> None:
    """Draw matrices by the spread of their shape; head and projections back to the stream start at zero."""
    for name, weight in model.named_parameters():
        if name == "lm_head.weight" or name.endswith("c_proj.weight"):
            weight.zero_()
            continue
        fan_out, fan_in = weight.shape
        embedding = name == "transformer.wte.weight"
        std = 1.0 if embedding else fan_in**-0.5 * min(1.0, (fan_out / fan_in) ** 0.5)
        weight.copy_(torch.empty(weight.shape).normal_(std=std, generator=generator))


@torch.no_grad()
def init_2026(model: nn.Module, config: ModelConfig, generator: torch.Generator) -> None:
    """Draw matrices uniformly, gates just above zero; scalars start as tuned upstream."""
    bound = (3 / config.n_embd) ** 0.5  # of a uniform distribution with standard deviation n_embd ** -0.5
    for name, weight in model.named_parameters():
        weight.copy_(_start_2026(name, weight.shape, bound, generator))


def _start_2026(name: str, shape: torch.Size, bound: float, generator: torch.Generator) -> Tensor:
    drawn = torch.empty(shape)
    match name.split("."):
        case ["resid_lambdas"]:
            return torch.linspace(1.15, 1.05, shape[0])
        case ["x0_lambdas"]:
            return torch.linspace(0.20, 0.05, shape[0])
        case ["smear_lambda"] | [*_, "c_proj", "weight"]:
            return drawn.zero_()
        case ["backout_lambda"]:
            return drawn.fill_(0.2)
        case ["transformer", "wte", "weight"]:
            return drawn.normal_(std=0.8, generator=generator)
        case ["lm_head", "weight"]:
            return drawn.normal_(std=0.001, generator=generator)
        case ["smear_gate", "weight"] | [*_, "ve_gate", "weight"]:
            return drawn.uniform_(0.0, 0.02, generator=generator)
        case [*_, "c_fc", "weight"]:
            return drawn.uniform_(-0.4 * bound, 0.4 * bound, generator=generator)
    return drawn.uniform_(-bound, bound, generator=generator)  # queries, keys, values, value embeddings
