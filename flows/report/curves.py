"""What a training measured as it ran, over the tokens it had read: curves, thinned to what a page can show.

A curve of tens of thousands of steps keeps the lowest and the highest value of each of some hundred pieces,
so that no peak is lost. Drawing is done elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from flows.display.quantities import is_number

Point = tuple[float, float]
MOST_POINTS = 400  # of a curve on a page: more than a picture of this size can show apart
_PIECES_OF_MEAN = 60  # a mean is taken over as many steps as make a run so many pieces


@dataclass(frozen=True)
class TrainingCurves:
    """The numbers of one training by name, each as points over `unit`."""

    unit: str  # tokens, or steps where nothing says how many tokens each had
    by_name: Mapping[str, tuple[Point, ...]]
    amounts: Mapping[int, float] = field(default_factory=dict)  # step -> tokens read up to its end
    left_out: int = 0  # numbers that are infinite or not a number at all

    def of(self, name: str) -> tuple[Point, ...]:
        """Return the points of a name; none where nothing of it was measured."""
        return self.by_name.get(name, ())


def training_curves(
    metrics: Sequence[Mapping[str, Any]], speeds: Sequence[Mapping[str, Any]], totals: Mapping[str, Any]
) -> TrainingCurves:
    """Return the curves of `metrics.jsonl` and `throughput.jsonl`; `totals` are the record's metrics."""
    lines = [line for line in (*metrics, *speeds) if is_number(line.get("step"))]
    amounts = _tokens_by_step(speeds) or _even_tokens(lines, totals)
    found: dict[str, dict[float, float]] = {}
    left_out = 0
    for line in lines:
        for name, value in line.items():
            if "/" not in name or not isinstance(value, int | float) or isinstance(value, bool):
                continue
            if not is_number(value):
                left_out += 1
                continue
            x = amounts.get(int(line["step"])) if amounts else float(line["step"])
            if x is not None:
                found.setdefault(name, {})[x] = float(value)
    points = {name: tuple(sorted(values.items())) for name, values in found.items()}
    return TrainingCurves("tokens" if amounts else "steps", points, amounts, left_out)


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """Return at most `most` points with the same first, last, lowest and highest ones of each piece."""
    if len(points) <= most:
        return tuple(points)
    pieces = max((most - 2) // 2, 1)
    kept = {0, len(points) - 1}
    for number in range(pieces):
        piece = range(number * len(points) // pieces, (number + 1) * len(points) // pieces)
        kept |= {min(piece, key=lambda i: points[i][1]), max(piece, key=lambda i: points[i][1])}
    return tuple(points[i] for i in sorted(kept))


def mean_of_pieces(points: Sequence[Point]) -> tuple[int, tuple[Point, ...]]:
    """Return over how many points a mean was taken, and the means, each at the end of what it is over."""
    width = max(len(points) // _PIECES_OF_MEAN, 1)
    sums = [0.0, *accumulate(value for _, value in points)]
    ends = range(width, len(points) + 1, max(width // 2, 1))
    return width, tuple((points[end - 1][0], (sums[end] - sums[end - width]) / width) for end in ends)


def _tokens_by_step(speeds: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Return the tokens read up to each step; nothing where a line does not say how many it had."""
    by_step = {int(line["step"]): line.get("tokens") for line in speeds if is_number(line.get("step"))}
    known = [(step, tokens) for step, tokens in sorted(by_step.items()) if is_number(tokens)]
    if len(known) < len(by_step) or [step for step, _ in known] != list(range(1, len(known) + 1)):
        return {}
    sums = accumulate(tokens for _, tokens in known if is_number(tokens))
    return {step: total for (step, _), total in zip(known, sums, strict=True)}


def _even_tokens(lines: Sequence[Mapping[str, Any]], totals: Mapping[str, Any]) -> dict[int, float]:
    """Return the tokens read up to each step as if all steps had the same number."""
    steps, tokens = totals.get("steps"), totals.get("tokens")
    if not is_number(steps) or not is_number(tokens) or not steps:
        return {}
    read = {int(line["step"]): float(tokens or 0) * line["step"] / steps for line in lines}
    return {step: amount for step, amount in read.items() if is_number(amount)}
