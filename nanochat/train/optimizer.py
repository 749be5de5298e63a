"""The optimizer of a whole model: Muon for the matrices in the blocks, AdamW for embedding and head.

Learning rates of AdamW scale with the width as (n_embd / 768) ** -0.5; every rate is multiplied by the
schedule at each step. One process only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import distributed

from nanochat.config import OptimizerConfig
from nanochat.model.gpt import GPT
from nanochat.train.muon import Muon

_BETAS = (0.8, 0.95)
_EPS = 1e-10
_REFERENCE_WIDTH = 768


class ModelOptimizer:
    """Clips, steps and keeps the state of all parameters."""

    def __init__(
        self,
        model: GPT,
        config: OptimizerConfig,
        *,
        lr_factor: float = 1.0,
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        """Group the model's parameters; `lr_factor` scales every learning rate of the run."""
        self._parameters = list(model.parameters())
        self._group = group
        matrices = {f"h.{name}": p for name, p in model.transformer.h.named_parameters()}
        width_factor = (model.config.n_embd / _REFERENCE_WIDTH) ** -0.5 * lr_factor
        groups = [
            {"params": [model.lm_head.weight], "lr": config.unembedding_lr * width_factor},
            {"params": [model.transformer.wte.weight], "lr": config.embedding_lr * width_factor},
        ]
        self._base_lrs = [group["lr"] for group in groups]
        self._adamw = torch.optim.AdamW(
            groups, betas=_BETAS, eps=_EPS, weight_decay=config.weight_decay, fused=True
        )
        self._muon = Muon(matrices, config.matrix_lr * lr_factor)
        self._grad_clip = config.grad_clip

    @contextlib.contextmanager
    def reducing(self) -> Iterator[None]:
        """Sum the gradients over all ranks after the backward pass inside."""
        yield
        if self._group is not None:
            for parameter in self._parameters:
                distributed.all_reduce(parameter.grad, group=self._group)

    def clip(self) -> torch.Tensor:
        """Scale all gradients down to the configured global norm; return the norm before that."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self._grad_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._grad_clip, norm)
        return norm

    def step(self, lr_multiplier: float, momentum: float) -> None:
        """Update all parameters and drop their gradients."""
        for group, lr in zip(self._adamw.param_groups, self._base_lrs, strict=True):
            group["lr"] = lr * lr_multiplier
        self._adamw.step()
        self._muon.step(lr_multiplier, momentum)
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return all that a restart needs: tensors and plain data only."""
        return {"adamw": self._adamw.state_dict()["state"], "muon": self._muon.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the state that `state_dict` returned; learning rates come from the configuration."""
        groups = self._adamw.state_dict()["param_groups"]
        self._adamw.load_state_dict({"state": state["adamw"], "param_groups": groups})
        self._muon.load_state_dict(state["muon"])
