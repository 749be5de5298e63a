"""Multipliers of learning rate and weight decay, and Muon's momentum, as pure functions of the step.

A step is counted from 0 before its update. No multiplier is negative, and none rises after a warmup;
midtraining falls at its end (upstream's first release rose there by mistake).
"""

from __future__ import annotations

import math

_MOMENTUM_STEPS = 300
_MOMENTUM_START, MOMENTUM = 0.85, 0.95
_MOMENTUM_STEPS_2026, _MOMENTUM_PEAK_2026, _MOMENTUM_END_2026 = 400, 0.97, 0.90
_MIDTRAIN_FLAT = 0.8  # part of midtraining at the full rate


def pretrain_multiplier(
    step: int, steps: int, warmdown_ratio: float, *, warmup_steps: int = 0, final: float = 0.0
) -> float:
    """Return 1 until the last `warmdown_ratio` of the run, then a line to `final` after the last step.

    During a warmup, a line from 1 / `warmup_steps` to 1 (architecture `2026`: 40 steps, and final 0.05).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    warmdown = round(warmdown_ratio * steps)
    left = steps - step
    return 1.0 if left >= warmdown else final + (1.0 - final) * (left / warmdown)


def midtrain_multiplier(step: int, steps: int) -> float:
    """Return 1 until 80 % of the run, then a line to 0."""
    progress = step / steps
    return 1.0 if progress < _MIDTRAIN_FLAT else (1.0 - progress) / (1.0 - _MIDTRAIN_FLAT)


def sft_multiplier(step: int, steps: int) -> float:
    """Return a line from 1 to 0."""
    return 1.0 - step / steps


def rising_momentum(step: int) -> float:
    """Return Muon's momentum: 0.85 to 0.95 over the first 300 steps."""
    part = min(step / _MOMENTUM_STEPS, 1.0)
    return (1.0 - part) * _MOMENTUM_START + part * MOMENTUM


def fixed_momentum(step: int) -> float:
    """Return Muon's momentum where it does not change."""
    del step
    return MOMENTUM


def momentum_2026(step: int, steps: int, warmdown_ratio: float) -> float:
    """Return Muon's momentum: 0.85 to 0.97 over 400 steps, and to 0.90 over the learning rate's warmdown."""
    if step < _MOMENTUM_STEPS_2026:
        part = step / _MOMENTUM_STEPS_2026
        return (1.0 - part) * _MOMENTUM_START + part * _MOMENTUM_PEAK_2026
    warmdown = round(warmdown_ratio * steps)
    part = max(0.0, 1.0 - (steps - step) / warmdown) if warmdown else 0.0
    return (1.0 - part) * _MOMENTUM_PEAK_2026 + part * _MOMENTUM_END_2026


def weight_decay_multiplier(step: int, steps: int) -> float:
    """Return half a wave of a cosine from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))
