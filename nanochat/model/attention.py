"""Causal self-attention with rotary positions and normalised queries and keys.

Shapes: B rows, T positions, S positions attended to, H heads, K key/value heads, D head dimension, C = H * D.
Rotation is by minus theta, and queries and keys are RMS-normed after it, as in upstream nanochat.
`attend` is the one place where attention is computed. Not here: where cached keys are kept (`kv_cache`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.attention import attention
from kernels.products import linear
from kernels.qk_norm_rotary import RMS_EPS as RMS_EPS  # published folders name it
from kernels.qk_norm_rotary import qk_norm_rotary
from nanochat.config import ModelConfig
from nanochat.model.architecture import (
    VALUE_GATE_CHANNELS,
    Architecture,
    architecture_of,
    has_value_embedding,
    windows,
)
from nanochat.model.kv_cache import Reading
from nanochat.model.packed_rows import PackedRows


class Linear(nn.Linear):
    """A linear map without bias whose weights start out unset."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def reset_parameters(self) -> None:
        """Leave the weights alone, and with them the global random state."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out), computed in autocast's type."""
        return linear(as_computed(x), self.weight)


def as_computed(x: Tensor) -> Tensor:
    """Return x in the type that autocast computes products in: our own ops are not among those it knows."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last dimension to unit root mean square, in the type of x, which autocast may not keep."""
    return F.rms_norm(x, (x.size(-1),), eps=RMS_EPS).to(x.dtype)


def rotary_tables(
    architecture: Architecture, length: int, head_dim: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return cos and sin in float32, each (1, length, 1, D / 2)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    positions = torch.arange(length, dtype=torch.float32, device=device)
    angles = torch.outer(positions, 1.0 / (architecture.rope_base**exponents))[None, :, None, :]
    cos, sin = angles.cos(), angles.sin()
    if architecture.bfloat16_tables:
        return cos.bfloat16().float(), sin.bfloat16().float()
    return cos, sin


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    starts: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Attend causally from q (B, T, H, D) to k and v (B, S, K, D); return (B, T, H, D).

    A query sees itself and `window` positions before it (None: all), but none before its document's start,
    given as `starts` (B, T); unless a mask or bias, to be broadcast to (B, H, T, S), says what it sees.
    Without one S is T, or T is 1 and sees all.
    """
    if mask is None and q.size(1) == k.size(1):
        return attention(as_computed(q), as_computed(k), as_computed(v), window=window, lo=starts)
    rows, length, heads, width = q.shape
    sharing = heads // k.size(2)
    k, v = k.transpose(1, 2), v.transpose(1, 2)  # (B, K, S, D)
    if length == 1:
        # The heads that share a key/value head ask like so many positions, for which no key is copied.
        q = q.view(rows, -1, sharing, width)
        if rows == 1 and mask is None and q.is_cpu and q.dtype == torch.float32:
            found = _attend_to_all(q[0], k[0], v[0])
        else:
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return found.reshape(rows, 1, heads, width)
    if sharing > 1:
        k, v = k.repeat_interleave(sharing, dim=1), v.repeat_interleave(sharing, dim=1)
    # Queries behind a cache of keys: few of them, so that a mask costs little.
    return F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask).transpose(1, 2)


def _attend_to_all(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend from few queries (K, Q, D) to all of k and v (K, S, D) on a CPU.

    PyTorch's own attention multiplies by a single query at a third of the memory's speed: with 600 and 1,500
    keys of ten heads it takes 1.5 times as long as this, with 100 a fifth less (two threads of an AMD EPYC;
    `tests.benchmarks.bench_decode_parts`).
    """
    scores = torch.bmm(k, (q * q.size(-1) ** -0.5).transpose(1, 2))  # (K, S, Q)
    shares = scores.softmax(dim=1)
    if q.size(1) == 1:
        return (v * shares).sum(dim=1, keepdim=True)
    return torch.bmm(shares.transpose(1, 2), v)


def attend_packed(q: Tensor, k: Tensor, v: Tensor, packed: PackedRows, window: int | None) -> Tensor:
    """Attend from and to one long row (1, N, H or K, D) of many, each in its own text."""
    out = torch.empty_like(q)
    for block in packed.blocks:
        keys, values = k[0, block.keys], v[0, block.keys]  # (R, S, K, D)
        bias = block.bias(window, q.dtype)
        found = attend(q[0, block.queries], keys, values, window=window, mask=bias)  # (R, T, H, D)
        out[0, block.places] = found.flatten(0, 1)[block.results]
    return out


def attend_cached(
    q: Tensor, k: Tensor, v: Tensor, reading: Reading, layer: int, window: int | None
) -> Tensor:
    """Store new keys and values (1, N, K, D); attend from q (1, N, H, D) to all that their rows now hold."""
    new = torch.cat((k, v))  # (2, N, K, D)
    found = []
    for part in reading.parts(window):
        keys, values = part.stored(layer, new)
        found.append(attend(part.queries(q), keys, values, window=window, mask=part.bias))
    return reading.joined(found, window)


class Context(NamedTuple):
    """What all layers of one forward pass share."""

    cos: Tensor  # (1 or B, T, 1, D / 2)
    sin: Tensor
    starts: Tensor | None = None  # (B, T), where each position's document begins; None: with the row
    packed: PackedRows | None = None  # what the one row is made of
    reading: Reading | None = None  # or what is read into which rows of a cache


def gated(gate: nn.Module, x: Tensor, context: Context) -> Tensor:
    """Map the few channels x (B, T, n) that a gate looks at; where a cache is read, by sums of single rows.

    A product as narrow as this is rounded by how many rows it has, which int8 weights would make visible: a
    row's answer would depend on the rows that are written with it.
    """
    weight = getattr(gate, "weight", None)
    if context.reading is None or not isinstance(weight, Tensor):
        found: Tensor = gate(x)
        return found
    return (as_computed(x)[..., None, :] * weight.to(as_computed(x).dtype)).sum(dim=-1)


class Attention(nn.Module):
    """One layer's attention."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.n_kv_head = config.n_kv_head
        self.head_dim = config.n_embd // config.n_head
        self.window = windows(config)[layer]
        self.qk_scale = architecture_of(config).qk_scale
        self.c_qkv: nn.Module | None = None  # one map in place of the next three, for inference
        self.c_q = Linear(config.n_embd, self.n_head * self.head_dim)
        self.c_k = Linear(config.n_embd, self.n_kv_head * self.head_dim)
        self.c_v = Linear(config.n_embd, self.n_kv_head * self.head_dim)
        self.c_proj: nn.Module = Linear(config.n_embd, config.n_embd)
        if has_value_embedding(config, layer):
            self.ve_gate = Linear(VALUE_GATE_CHANNELS, self.n_kv_head)

    def forward(self, x: Tensor, context: Context, value_embedding: Tensor | None = None) -> Tensor:
        """Map normed activations (B, T, C) to (B, T, C); reading into a cache, attend to all it holds.

        `value_embedding` (B, T, K * D) is mixed into the values, each head by its own gate of 0 to 3.
        """
        rows, length, width = x.shape
        q, k, v = self._projected(x, context)
        if value_embedding is not None:
            gate = (
                3 * torch.sigmoid(gated(self.ve_gate, x[..., :VALUE_GATE_CHANNELS], context))[..., None]
            )  # (B, T, K, 1)
            v = v + gate * value_embedding.view_as(v).to(v.dtype)
        if context.reading is not None:
            y = attend_cached(q, k, v, context.reading, self.layer, self.window)
        elif context.packed is not None:
            y = attend_packed(q, k, v, context.packed, self.window)
        else:
            y = attend(q, k, v, window=self.window, starts=context.starts)
        projected: Tensor = self.c_proj(y.reshape(rows, length, width))
        return projected

    def _projected(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Return q (B, T, H, D) and k (B, T, K, D), both turned, and v (B, T, K, D)."""
        shape = (*x.shape[:2], -1, self.head_dim)
        if self.c_qkv is None:
            q, k = (self._turn(project(x).view(shape), context) for project in (self.c_q, self.c_k))
            return q, k, self.c_v(x).view(shape)
        qk, v = self.c_qkv(x).view(shape).split([self.n_head + self.n_kv_head, self.n_kv_head], dim=2)
        q, k = torch.split(self._turn(qk.contiguous(), context), [self.n_head, self.n_kv_head], dim=2)
        return q.contiguous(), k.contiguous(), v.contiguous()

    def _turn(self, x: Tensor, context: Context) -> Tensor:
        x = qk_norm_rotary(x, context.cos, context.sin, eps=RMS_EPS)
        return x if self.qk_scale == 1 else self.qk_scale * x
