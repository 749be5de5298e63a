"""Learning rate multipliers and Muon's momentum, as pure functions of the step.

A step is counted from 0 before its update. All multipliers start at their largest value and none is negative;
midtraining falls at its end (upstream's first release rose there by mistake).
"""

from __future__ import annotations

_MOMENTUM_STEPS = 300
_MOMENTUM_START, MOMENTUM = 0.85, 0.95
_MIDTRAIN_FLAT = 0.8  # part of midtraining at the full rate


def pretrain_multiplier(step: int, steps: int, warmdown_ratio: float) -> float:
    """Return 1 until the last `warmdown_ratio` of the run, then a line that reaches 0 after the last step."""
    warmdown = round(warmdown_ratio * steps)
    left = steps - step
    return 1.0 if left >= warmdown else left / warmdown


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
