"""Upstream's engine in plain PyTorch, the baseline of `bench_chat.py`: nothing clever.

The prompt is read in one row, with logits for each of its positions; keys and values, all layers in one
tensor, are then copied for every row, and each step feeds one token a row and reads the next from the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanochat.config import ModelConfig
from tests.benchmarks.plain_nanochat import PlainGPT, norm, rotate


class UpstreamChat:
    """Greedy continuations of one prompt in several rows, by float32 weights or dynamic int8."""

    def __init__(self, config: ModelConfig, state: dict[str, Tensor], *, int8: bool = False) -> None:
        self.config, self.model = config, PlainGPT(config)
        self.model.load_state_dict(state, assign=True)
        self._kept = torch.empty(0)
        self._position = 0
        self._tokens: list[int] = []
        if int8:
            self.model = torch.ao.quantization.quantize_dynamic(self.model, {nn.Linear}, dtype=torch.qint8)

    def start(self, prompts: Sequence[Sequence[int]], new: int) -> list[int]:
        """Read the first of the prompts into as many rows as there are; return their first tokens."""
        self._kept, self._position = self._empty(1, len(prompts[0])), 0
        logits = self._forward(torch.tensor([prompts[0]]))[:, -1]
        whole = self._empty(len(prompts), len(prompts[0]) + new)
        whole[:, :, :, :, : self._position] = self._kept
        self._kept = whole
        self._tokens = logits.argmax(-1).tolist() * len(prompts)
        return self._tokens

    def step(self) -> list[int]:
        """Return the next token of each row."""
        logits = self._forward(torch.tensor(self._tokens)[:, None])[:, -1]
        self._tokens = logits.argmax(-1).tolist()
        return self._tokens

    def _empty(self, rows: int, length: int) -> Tensor:
        config = self.config
        return torch.empty(
            config.n_layer, 2, rows, config.n_head, length, config.n_embd // config.n_head
        )  # (L, 2, B, H, T, D)

    @torch.inference_mode()
    def _forward(self, idx: Tensor) -> Tensor:
        begin, end = self._position, self._position + idx.size(1)
        cos, sin = self.model.cos[begin:end], self.model.sin[begin:end]
        x = norm(self.model.transformer["wte"](idx))
        for layer, block in enumerate(self.model.transformer["h"]):
            x = x + self._attend(layer, block.attn, norm(x), cos, sin)
            x = x + block.mlp(norm(x))
        self._position = end
        return 15 * torch.tanh(self.model.lm_head(norm(x)).float() / 15)  # (B, T, V)

    def _attend(self, layer: int, attn: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        begin, end = self._position, self._position + x.size(1)
        q, k, v = (
            part(x).unflatten(-1, (self.config.n_head, -1)).transpose(1, 2)
            for part in (attn.c_q, attn.c_k, attn.c_v)
        )  # (B, H, T, D)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        self._kept[layer, 0, :, :, begin:end], self._kept[layer, 1, :, :, begin:end] = k, v
        keys, values = self._kept[layer, :, :, :, :end]
        y = F.scaled_dot_product_attention(q, keys, values, is_causal=begin == 0)
        return attn.c_proj(y.transpose(1, 2).flatten(-2))
