"""Learning rate and decay multipliers and Muon's momentum, as pure functions of the step.

A step is counted from 0 before its update. No multiplier is negative, and apart from a warmup all start at
their largest value; midtraining falls at its end (upstream's first release rose there by mistake).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nanochat.config import PretrainConfig

_MOMENTUM_STEPS = 300
_MOMENTUM_START, MOMENTUM = 0.85, 0.95
# Architecture 2026: its momentum rises higher, and falls again with the learning rate.
_MOMENTUM_STEPS_2026 = 400
_MOMENTUM_2026, _MOMENTUM_END_2026 = 0.97, 0.90
_MIDTRAIN_FLAT = 0.8  # part of midtraining at the full rate


@dataclass(frozen=True)
class PretrainSchedule:
    """What changes from step to step of a pretraining run."""

    lr_multiplier: Callable[[int], float]
    momentum: Callable[[int], float]
    weight_decay: Callable[[int], float]


def pretrain_schedule(config: PretrainConfig) -> PretrainSchedule:
    """Return the schedule of a run; momentum and weight decay go by the model's architecture."""
    steps, ratio = config.steps, config.warmdown_ratio

    def lr_multiplier(step: int) -> float:
        return pretrain_multiplier(
            step, steps, ratio, warmup_steps=config.warmup_steps, final_lr_frac=config.final_lr_frac
        )

    if config.model.architecture == "classic":
        return PretrainSchedule(lr_multiplier, rising_momentum, constant)
    return PretrainSchedule(
        lr_multiplier,
        lambda step: rising_and_falling_momentum(step, steps, ratio),
        lambda step: cosine_decay(step, steps),
    )


def pretrain_multiplier(
    step: int, steps: int, warmdown_ratio: float, *, warmup_steps: int = 0, final_lr_frac: float = 0.0
) -> float:
    """Return a line up to 1, then 1, then over the last `warmdown_ratio` of the run a line down.

    It reaches `final_lr_frac` after the last step.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    warmdown = round(warmdown_ratio * steps)
    left = steps - step
    part = 1.0 if left >= warmdown else left / warmdown
    return part + (1.0 - part) * final_lr_frac


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


def rising_and_falling_momentum(step: int, steps: int, warmdown_ratio: float) -> float:
    """Return Muon's momentum: 0.85 to 0.97 over 400 steps, and down to 0.90 over the warmdown."""
    if step < _MOMENTUM_STEPS_2026:
        part = step / _MOMENTUM_STEPS_2026
        return (1.0 - part) * _MOMENTUM_START + part * _MOMENTUM_2026
    warmdown = round(warmdown_ratio * steps)
    part = max(0.0, (step - (steps - warmdown)) / max(warmdown, 1))
    return (1.0 - part) * _MOMENTUM_2026 + part * _MOMENTUM_END_2026


def cosine_decay(step: int, steps: int) -> float:
    """Return half a cosine from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))


def constant(step: int) -> float:
    """Return 1."""
    del step
    return 1.0


def fixed_momentum(step: int) -> float:
    """Return Muon's momentum where it does not change."""
    del step
    return MOMENTUM
