"""Whether this machine adds up floats in the order of the one that recorded the golden training runs.

Training as recorded is repeatable to the last digit only there: Muon's bfloat16 iteration, and AdamW where
gradients are rounding noise, turn a last bit into differences that anyone can see.
"""

from __future__ import annotations

import pytest
import torch

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
