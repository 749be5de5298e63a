"""Causal self-attention with rotary positions and normalised queries and keys.

Shapes: B rows, T positions, H heads, K key/value heads, D head dimension, C = H * D.
Numbers follow upstream nanochat of October 2025: tables rounded to bfloat16, rotation by minus theta,
RMS-norm of queries and keys after the rotation. Not here: where cached keys are kept (`kv_cache`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanochat.config import ModelConfig
from nanochat.model.kv_cache import KVCache

# What `F.rms_norm` uses on float32 when no eps is given; pinned so that a torch release cannot change it.
RMS_EPS = 1.1920929e-07
ROPE_BASE = 10_000.0


class Linear(nn.Linear):
    """A linear map without bias whose weights start out unset."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def reset_parameters(self) -> None:
        """Leave the weights alone, and with them the global random state."""


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last dimension to unit root mean square."""
    return F.rms_norm(x, (x.size(-1),), eps=RMS_EPS)


def rotary_tables(length: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cos and sin, each (1, length, 1, D / 2): float32 numbers rounded to bfloat16."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    positions = torch.arange(length, dtype=torch.float32, device=device)
    angles = torch.outer(positions, 1.0 / (ROPE_BASE**exponents))[None, :, None, :]
    return angles.cos().bfloat16().float(), angles.sin().bfloat16().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the halves of x (B, T, H, D) against each other, by minus theta."""
    x1, x2 = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1)


class Context(NamedTuple):
    """What all layers of one forward pass share."""

    cos: Tensor  # (1 or B, T, 1, D / 2)
    sin: Tensor
    mask: Tensor | None = None  # True where a query may attend to a slot; None: plain causal
    kv_cache: KVCache | None = None


class Attention(nn.Module):
    """One layer's attention."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.n_kv_head = config.n_kv_head
        self.head_dim = config.n_embd // config.n_head
        self.c_q = Linear(config.n_embd, self.n_head * self.head_dim)
        self.c_k = Linear(config.n_embd, self.n_kv_head * self.head_dim)
        self.c_v = Linear(config.n_embd, self.n_kv_head * self.head_dim)
        self.c_proj = Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Map normed activations (B, T, C) to (B, T, C); with a cache, attend to all that it holds too."""
        rows, length, width = x.shape
        q = self.c_q(x).view(rows, length, self.n_head, self.head_dim)
        k = self.c_k(x).view(rows, length, self.n_kv_head, self.head_dim)
        v = self.c_v(x).view(rows, length, self.n_kv_head, self.head_dim)
        q = rms_norm(rotate(q, context.cos, context.sin)).transpose(1, 2)  # (B, H, T, D)
        k = rms_norm(rotate(k, context.cos, context.sin)).transpose(1, 2)  # (B, K, T, D)
        v = v.transpose(1, 2)
        if context.kv_cache is not None:
            k, v = context.kv_cache.append(self.layer, k, v)
        if self.n_kv_head < self.n_head:
            repeats = self.n_head // self.n_kv_head
            k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        causal = context.mask is None and length > 1
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=context.mask, is_causal=causal)
        projected: Tensor = self.c_proj(y.transpose(1, 2).reshape(rows, length, width))
        return projected
