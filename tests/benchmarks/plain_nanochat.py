"""Upstream's training step in plain PyTorch, the baseline of `bench_training.py`: nothing clever.

The October 2025 model in float32 with whole logits, `scaled_dot_product_attention` and no compilation; AdamW
for embedding and head, Muon with the iteration in bfloat16 for the matrices, gradients clipped to norm 1. On
a GPU the same model trains under autocast and compiled, one rank of eight: `plain_rank.py`.
Parameter names are those of the checkpoints, so that both sides start from the same weights.
Shapes: B rows, T positions, H heads, D head dimension, C width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanochat.config import ModelConfig


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.n_head
        for name in ("c_q", "c_k", "c_v", "c_proj"):
            setattr(self, name, nn.Linear(config.n_embd, config.n_embd, bias=False))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.c_q(x), self.c_k(x), self.c_v(x))
        )  # (B, H, T, D)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(config), MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(norm(x), cos, sin)
        return x + self.mlp(norm(x))


class PlainGPT(nn.Module):
    """The model, from token ids and targets (B, T) to the mean loss."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "h": nn.ModuleList(Block(config) for _ in range(config.n_layer)),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        half = config.n_embd // config.n_head // 2
        angles = torch.outer(torch.arange(config.sequence_len), 10_000.0 ** -(torch.arange(half) / half))
        for name, table in (("cos", angles.cos()), ("sin", angles.sin())):  # (T, D / 2)
            self.register_buffer(name, table.bfloat16().float(), persistent=False)

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        x = norm(self.transformer["wte"](idx))
        for block in self.transformer["h"]:
            x = block(x, self.cos, self.sin)
        logits = 15 * torch.tanh(self.lm_head(norm(x)).float() / 15)  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


class PlainMuon(torch.optim.Optimizer):
    """Muon, one matrix after the other."""

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.momentum = 0.95

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("buffer", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - self.momentum)
                update = newton_schulz(p.grad.lerp(buffer, self.momentum))
                p.add_(update.float(), alpha=-group["lr"] * max(1.0, p.size(0) / p.size(1)) ** 0.5)


def newton_schulz(g: Tensor) -> Tensor:
    x = g.bfloat16()
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class PlainTrainer:
    """Model and optimizers; `step` trains on one batch and returns its loss."""

    def __init__(self, config: ModelConfig, state: dict[str, Tensor]) -> None:
        self.model = PlainGPT(config)
        self.model.load_state_dict(state)
        scale = (config.n_embd / 768) ** -0.5
        groups = [
            {"params": [self.model.lm_head.weight], "lr": 0.004 * scale},
            {"params": [self.model.transformer["wte"].weight], "lr": 0.2 * scale},
        ]
        self.adamw = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, fused=True)
        self.muon = PlainMuon(list(self.model.transformer["h"].parameters()), lr=0.02)

    def step(self, idx: Tensor, targets: Tensor, momentum: float) -> float:
        loss = self.model(idx, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.muon.momentum = momentum
        self.adamw.step()
        self.muon.step()
        self.model.zero_grad(set_to_none=True)
        return float(loss.detach())
