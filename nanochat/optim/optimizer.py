"""The optimizer of a whole model: Muon for the matrices in the blocks, AdamW for all else.

One class for one and for many processes; who updates what is `nanochat.optim.sharding`. Which betas and decay
a parameter has is set by the model's architecture (`SETTINGS`); its learning rate follows from the
configuration (`nanochat.config.learning_rates`) and is multiplied by the schedule at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nanochat.config import OptimizerConfig, learning_rates
from nanochat.errors import DataError
from nanochat.model.architecture import ParameterKind
from nanochat.model.gpt import GPT
from nanochat.optim.adamw import AdamW, ParameterGroup
from nanochat.optim.muon import CLASSIC, NORMALIZED, MatrixRule, Muon
from nanochat.optim.sharding import Group as Processes
from nanochat.optim.sharding import Sharding

_NORM_ELEMENTS = 1 << 18  # that exist in float64 at once, on a CPU
_TINY = 1e-6  # what PyTorch's own clipping adds to the norm


@dataclass(frozen=True)
class AdamWSetting:
    """How AdamW trains the parameters of one kind."""

    betas: tuple[float, float]
    weight_decay: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the parameters of an architecture are trained."""

    adamw: Callable[[OptimizerConfig], dict[ParameterKind, AdamWSetting]]
    """From the configuration to the groups."""
    matrix_rule: MatrixRule
    decays_matrices: bool
    """Whether the configured weight decay is that of the matrices; else it is AdamW's."""


def _classic_groups(config: OptimizerConfig) -> dict[ParameterKind, AdamWSetting]:
    setting = AdamWSetting((0.8, 0.95), config.weight_decay)
    return {"lm_head": setting, "wte": setting}


def _groups_2026(_: OptimizerConfig) -> dict[ParameterKind, AdamWSetting]:
    return {
        "lm_head": AdamWSetting((0.8, 0.96), 0.01),
        "wte": AdamWSetting((0.8, 0.995), 0.001),
        "value_embeds": AdamWSetting((0.8, 0.995), 0.01),
        "resid_lambdas": AdamWSetting((0.8, 0.95), 0.05),
        "x0_lambdas": AdamWSetting((0.96, 0.95), 0.0),
        "scalars": AdamWSetting((0.8, 0.95), 0.0),
    }


SETTINGS = {
    "classic": Setting(adamw=_classic_groups, matrix_rule=CLASSIC, decays_matrices=False),
    "2026": Setting(adamw=_groups_2026, matrix_rule=NORMALIZED, decays_matrices=True),
}


class ModelOptimizer:
    """Reduces and clips gradients, steps, and keeps the state of this process's shards."""

    def __init__(
        self, model: GPT, config: OptimizerConfig, *, lr_factor: float = 1.0, group: Processes | None = None
    ) -> None:
        """Group the model's parameters; `lr_factor` scales every learning rate of the run.

        All processes of `group` make one with equal models; None: one process.
        """
        setting = SETTINGS[model.config.architecture]
        kinds = model.parameter_groups()
        matrices = kinds.pop("matrices")
        rows = {name: parameter for named in kinds.values() for name, parameter in named.items()}
        self._device, self._grad_clip, self._steps = model.device, config.grad_clip, 0
        self._sharding = Sharding(rows, matrices, group)
        self._state_shapes = {
            **{name: dict.fromkeys(("exp_avg", "exp_avg_sq"), tuple(p.shape)) for name, p in rows.items()},
            **{name: setting.matrix_rule.state_shapes(p.shape) for name, p in matrices.items()},
        }
        groups, rates = setting.adamw(config), learning_rates(model.config, config)
        self._row_names, self._matrix_names = list(rows), list(matrices)
        shards = self._sharding.shards
        self._adamw = AdamW(
            [
                ParameterGroup(
                    weights={name: shards[name].weight for name in named if name in shards},
                    lr=rates[kind] * lr_factor,
                    betas=groups[kind].betas,
                    weight_decay=groups[kind].weight_decay,
                )
                for kind, named in kinds.items()
            ]
        )
        self._muon = Muon(
            {name: shards[name].weight for name in matrices if name in shards},
            setting.matrix_rule,
            lr=rates["matrices"] * lr_factor,
            weight_decay=config.weight_decay if setting.decays_matrices else 0.0,
        )
        self._state = {**self._adamw.state(), **self._muon.state()}

    def reducing(self) -> AbstractContextManager[None]:
        """Sum gradients over all processes during the step's last backward pass, which runs inside."""
        return self._sharding.reducing()

    @torch.no_grad()
    def clip(self) -> Tensor:
        """Scale the summed gradients down to the configured global norm; return the norm before that.

        Squares add in float64, so the rounded result does not depend on how gradients are divided.
        """
        self._sharding.reduce()
        shards = self._sharding.shards.values()
        gradients = [shard.weight.grad for shard in shards if shard.weight.grad is not None]
        norm = self._sharding.sum(_sum_of_squares(gradients, self._device)).sqrt().float()
        if self._grad_clip is not None and gradients:
            torch._foreach_mul_(gradients, (self._grad_clip / (norm + _TINY)).clamp(max=1.0))
        return norm

    def step(self, lr_multiplier: float, momentum: float, weight_decay_multiplier: float = 1.0) -> None:
        """Update all parameters and drop their gradients; the last factor is for the matrices' decay."""
        self._sharding.reduce()
        self._adamw.step(lr_multiplier)
        self._sharding.start_publishing(self._row_names)
        self._muon.step(lr_multiplier, momentum, weight_decay_multiplier)
        self._sharding.start_publishing(self._matrix_names)
        self._sharding.finish_publishing()
        self._sharding.drop_gradients()
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return all that a restart needs with any number of processes: CPU tensors and plain data only.

        Every process has to call it; the result is on rank 0, that of others is empty.
        """
        parameters = self._sharding.collect(self._state, self._state_shapes)
        return {"steps": self._steps, "parameters": parameters} if parameters else {}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take this process's shards of a whole state; learning rates come from the configuration."""
        for name, tensors in self._state.items():
            for key, own in tensors.items():
                whole = _whole(state, name, key, self._state_shapes[name][key])
                own.copy_(self._sharding.shards[name].part_of(whole) if name in self._row_names else whole)
        self._steps = state["steps"]
        self._adamw.set_steps(self._steps)


def _sum_of_squares(gradients: list[Tensor], device: torch.device) -> Tensor:
    """Return the sum over all gradients in float64.

    On a GPU one kernel reads many tensors and converts as it reads; elsewhere each is converted as a whole.
    """
    if device.type == "cpu":
        gradients = [part for grad in gradients for part in torch.split(grad.flatten(), _NORM_ELEMENTS)]
    if not gradients:
        return torch.zeros((), dtype=torch.float64, device=device)
    return torch.stack(torch._foreach_norm(gradients, dtype=torch.float64)).square().sum()


def _whole(state: Mapping[str, Any], name: str, key: str, shape: tuple[int, ...]) -> Tensor:
    """Return a whole parameter's state; DataError unless it is there in this shape."""
    tensor = state.get("parameters", {}).get(name, {}).get(key)
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
        found = tuple(tensor.shape) if isinstance(tensor, Tensor) else "nothing"
        raise DataError(f"the optimizer state has {found} as {key} of {name}, not a tensor of shape {shape}")
    return tensor
