"""What it takes to repeat the training recorded in October 2025 exactly: its machine and its operations.

Muon's bfloat16 iteration turns a last bit into differences that anyone can see. The recording of 2026 has
float32 iterations and needs none of this.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.qk_norm_rotary import qk_norm_rotary_reference
from kernels.relu_squared import relu_squared_mlp_reference
from nanochat.model import attention, gpt

_FLOAT32, _BFLOAT16 = -15874.9619852826, -15945.175159454346  # Zen 4 with AVX512_BF16, torch 2.13


def fingerprint() -> tuple[float, float]:
    """Return a sum over all last bits of a float32 and of a bfloat16 product."""
    x = (torch.arange(256 * 384) * 7919 % 1009).float().view(256, 384) / 1009 - 0.5
    weights = (torch.arange(256 * 256) % 31).double().view(256, 256)
    half = x.bfloat16()
    return float(((x @ x.mT) * weights).sum()), float(((half @ half.mT) * weights).sum())


def skip_unless_as_recorded() -> None:
    """Skip a test on a machine that adds up in another order."""
    if fingerprint() != (_FLOAT32, _BFLOAT16):
        pytest.skip("products add up in another order here than where the run was recorded")


def compute_as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put torch's own operations in the place of ours, which add up in another order."""
    monkeypatch.setattr(attention, "attention", _attention)
    monkeypatch.setattr(attention, "qk_norm_rotary", qk_norm_rotary_reference)
    monkeypatch.setattr(gpt, "linear_cross_entropy", _linear_cross_entropy)
    monkeypatch.setattr(gpt, "relu_squared_mlp", relu_squared_mlp_reference)


def _attention(q: Tensor, k: Tensor, v: Tensor, *, window: None, lo: None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def _linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    softcap: float,
    ignore_index: int,
    reduction: str,
    valid_vocab: int,
) -> Tensor:
    logits = softcap * torch.tanh((hidden @ weight.T)[:, :valid_vocab] / softcap)
    return F.cross_entropy(logits, targets, ignore_index=ignore_index, reduction=reduction)
