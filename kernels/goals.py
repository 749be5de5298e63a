"""What a GPU run is to reach, one row a goal: limits for an H100 SXM, from published figures and counts.

Who measures them: `kernels.bench` (part `kernels`) and `tests/benchmarks/bench_gpu_step.py` (part `step`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One measured number and its limit."""

    part: str
    name: str
    limit: float
    unit: str
    at_least: bool = True
    source: str  # of the limit

    def met(self, value: float) -> bool:
        """Return whether a measured value reaches the goal; a NaN does not."""
        return value >= self.limit if self.at_least else value <= self.limit


GOALS = (
    Goal(
        part="kernels",
        name="attention forward",
        limit=540,
        unit="TFLOP/s",
        source="head dimension 128, 2,048 tokens, causal; best public: Triton 568, FlashAttention 3 560",
    ),
    Goal(
        part="kernels",
        name="attention backward",
        limit=340,
        unit="TFLOP/s",
        source="the same shape; best public: Triton 347, FlashAttention 3 316",
    ),
    Goal(
        part="kernels",
        name="linear_cross_entropy",
        limit=600,
        unit="TFLOP/s",
        source="d20, with gradients; best public figure 659",
    ),
    Goal(
        part="kernels",
        name="linear_cross_entropy memory",
        limit=1.6,
        unit="GiB",
        at_least=False,
        source="d20, beyond its inputs",
    ),
    Goal(
        part="kernels",
        name="relu_squared_mlp against torch.compile",
        limit=1.0,
        unit="x",
        source="its time over ours",
    ),
    Goal(
        part="kernels",
        name="qk_norm_rotary against torch.compile",
        limit=1.0,
        unit="x",
        source="its time over ours",
    ),
    Goal(
        part="step",
        name="d20 step",
        limit=385,
        unit="ms",
        at_least=False,
        source="60 % of 989 TFLOP/s; upstream's log 487",
    ),
    Goal(part="step", name="d20 step, stretch", limit=340, unit="ms", at_least=False, source="68 %"),
)


def goals_of(part: str) -> tuple[Goal, ...]:
    """Return the goals that a part of the run measures."""
    return tuple(each for each in GOALS if each.part == part)


def goal(name: str) -> Goal:
    """Return the goal of this name."""
    return next(each for each in GOALS if each.name == name)
