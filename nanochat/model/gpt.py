"""The transformer, with the parameter names, shapes and numbers of upstream nanochat (October 2025).

Untied head, no biases, no learned norms, rotary positions, relu^2 MLP, logits capped at +-15. It knows
nothing of optimizers, training or text. A new model has unset weights: `init_weights` or a checkpoint
(`nanochat.model.checkpoint`) fills them.

Shapes: B rows, T positions, C = n_embd, V = vocab_size.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanochat.config import ModelConfig
from nanochat.model import flops
from nanochat.model.attention import Attention, Context, Linear, rms_norm, rotary_tables
from nanochat.model.kv_cache import KVCache

LOGIT_CAP = 15.0
IGNORED = -1  # target that counts for nothing
_TABLE_FACTOR = 10  # rotary tables reach this many training contexts at first


class Embedding(nn.Embedding):
    """An embedding whose weights start out unset."""

    def reset_parameters(self) -> None:
        """Leave the weights alone, and with them the global random state."""


class MLP(nn.Module):
    """Two linear maps around a squared relu."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        projected: Tensor = self.c_proj(F.relu(self.c_fc(x)).square())
        return projected


class Block(nn.Module):
    """Attention, then MLP, each on the normed residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = x + self.attn(rms_norm(x), context)
        out: Tensor = x + self.mlp(rms_norm(x))
        return out


class Body(nn.Module):
    """Embedding and blocks; a module of its own because upstream's parameter names have it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))

    def forward(self, idx: Tensor, context: Context) -> Tensor:
        """Map token ids (B, T) to the final normed activations (B, T, C)."""
        x = rms_norm(self.wte(idx))
        for block in self.h:
            x = block(x, context)
        return rms_norm(x)


class GPT(nn.Module):
    """The whole model."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Body(config)
        self.lm_head = Linear(config.n_embd, config.vocab_size)
        self._set_tables(_TABLE_FACTOR * config.sequence_len)

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return self.lm_head.weight.device

    def flops_per_token(self) -> int:
        """Return forward and backward operations per trained token."""
        return flops.flops_per_token(self.config)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights anew from a CPU generator: the same weights on every device."""
        for name, weight in self.named_parameters():
            if name == "lm_head.weight" or name.endswith("c_proj.weight"):
                weight.zero_()
                continue
            fan_out, fan_in = weight.shape
            embedding = name == "transformer.wte.weight"
            std = 1.0 if embedding else fan_in**-0.5 * min(1.0, (fan_out / fan_in) ** 0.5)
            weight.copy_(torch.empty(weight.shape).normal_(std=std, generator=generator))

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        kv_cache: KVCache | None = None,
        loss_reduction: Literal["mean", "sum", "none"] = "mean",
        *,
        last_only: bool = False,
    ) -> Tensor:
        """Map token ids (B, T) to logits (B, T, V), or with targets (B, T) to their cross entropy in nats.

        Targets of -1 are left out; `none` returns (B, T). `last_only` computes the logits of the last
        position alone, (B, 1, V).
        """
        x = self.hidden(idx, kv_cache)
        if targets is None:
            return self.logits(x[:, -1:] if last_only else x)
        logits = self.logits(x).view(-1, self.config.vocab_size)
        flat = targets.reshape(-1).long()
        loss = F.cross_entropy(logits, flat, ignore_index=IGNORED, reduction=loss_reduction)
        return loss.view(targets.shape) if loss_reduction == "none" else loss

    def hidden(self, idx: Tensor, kv_cache: KVCache | None = None) -> Tensor:
        """Map token ids (B, T) to the final normed activations (B, T, C)."""
        length = idx.size(1)
        mask = None if kv_cache is None else kv_cache.mask(length)
        x: Tensor = self.transformer(idx, Context(*self._tables(length, kv_cache), mask, kv_cache))
        if kv_cache is not None:
            kv_cache.advance(length)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Map final activations (B, T, C) to capped logits (B, T, V) in float32."""
        return LOGIT_CAP * torch.tanh(self.lm_head(x).float() / LOGIT_CAP)

    def _tables(self, length: int, kv_cache: KVCache | None) -> tuple[Tensor, Tensor]:
        end = length + (kv_cache.position if kv_cache is not None else 0)
        if end > self.cos.size(1):
            self._set_tables(2 * end)
        if kv_cache is None:
            return self.cos[:, :length], self.sin[:, :length]
        positions = kv_cache.positions(length)
        if isinstance(positions, slice):
            return self.cos[:, positions], self.sin[:, positions]
        return self.cos[0, positions], self.sin[0, positions]  # (B, T, 1, D / 2)

    def _set_tables(self, length: int) -> None:
        head_dim = self.config.n_embd // self.config.n_head
        cos, sin = rotary_tables(length, head_dim, self.device)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
