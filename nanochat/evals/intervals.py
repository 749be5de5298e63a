"""How far a benchmark's number can be trusted: intervals, and the test of two models on the same items.

A benchmark's items are taken as a sample of all the items that could have been asked. Nothing here needs
more than means and counts, except comparisons, which pair the items:

- One share has Wilson's interval, which holds for zero right answers as well. Where an item is answered
  several times and counts in parts, it is on the wide side.
- Sums add the distances to the parts' limits in squares (Zou and Donner 2008), the parts taken as
  independent; CORE asks the items of hellaswag twice, which makes its interval a little too narrow.
- The difference of two models on the same items is Newcombe's interval for pairs (1998, method 10).
- Its p-value is exact: the part of all ways to swap the models, item by item, that differ at least as much.
  Where an item is right or wrong, that is McNemar's exact test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
_Z = 1.959963984540054  # standard deviations on either side of a normal mean that hold that part


@dataclass(frozen=True)
class Estimate:
    """A number and the limits of its interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return it for programs."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Difference:
    """What the second of two models has more than the first on the same items."""

    estimate: Estimate
    p: float  # probability of a difference at least this large between models that are equally good
    better: int  # items on which the second is better
    worse: int


def share(mean: float, items: int) -> Estimate:
    """Return a share of `items` with its interval; without items nothing is known."""
    if items == 0:
        return Estimate(mean, 0.0, 1.0)
    spread = _Z**2 / items
    middle = (mean + spread / 2) / (1 + spread)
    half = math.sqrt(mean * (1 - mean) * spread + spread**2 / 4) / (1 + spread)
    # At the ends the limit is the end itself, whatever rounding says.
    low = max(0.0, middle - half) if mean > 0 else 0.0
    high = min(1.0, middle + half) if mean < 1 else 1.0
    return Estimate(mean, low, high)


def weighted_sum(parts: Iterable[tuple[float, Estimate]]) -> Estimate:
    """Return the sum of independent estimates, each with a weight of at least zero."""
    weighted = [(weight * part.value, weight * part.low, weight * part.high) for weight, part in parts]
    value = math.fsum(v for v, _, _ in weighted)
    down = math.hypot(*(v - low for v, low, _ in weighted))
    up = math.hypot(*(high - v for v, _, high in weighted))
    return Estimate(value, value - down, value + up)


def centered_mean(shares: Sequence[tuple[Estimate, float]]) -> Estimate:
    """Return the mean over tasks of (share - chance) / (1 - chance), from shares with their chances."""
    weights = centering_weights([chance for _, chance in shares])
    mean = weighted_sum(zip(weights, (estimate for estimate, _ in shares), strict=True))
    chance = math.fsum(weight * chance for weight, (_, chance) in zip(weights, shares, strict=True))
    return Estimate(mean.value - chance, mean.low - chance, mean.high - chance)


def centering_weights(chances: Sequence[float]) -> list[float]:
    """Return how much each task's share counts in the mean above chance."""
    return [1 / (1 - chance) / len(chances) for chance in chances]


def difference(first: Sequence[int], second: Sequence[int], of: int = 1) -> Difference:
    """Compare two models on the same items: how often each item was right, out of `of` times."""
    x, y = np.array(first, np.int64), np.array(second, np.int64)
    gains = y - x
    low, high = _paired_limits(x / of, y / of)
    return Difference(
        Estimate(float(gains.sum()) / of / max(len(gains), 1), low, high),
        swap_probability(gains),
        int((gains > 0).sum()),
        int((gains < 0).sum()),
    )


def _paired_limits(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the limits of mean(y) - mean(x) by Newcombe's method 10."""
    n = len(x)
    if n == 0:
        return -1.0, 1.0
    first, second = share(float(x.mean()), n), share(float(y.mean()), n)
    together = n * float(x @ y) - float(x.sum() * y.sum())
    scale = math.sqrt(max(0.0, n * float(x @ x) - float(x.sum()) ** 2)) * math.sqrt(
        max(0.0, n * float(y @ y) - float(y.sum()) ** 2)
    )
    if together > 0:  # the correction for small samples
        together = max(0.0, together - n / 2)
    correlation = together / scale if scale else 0.0
    gain = second.value - first.value
    down, up = second.value - second.low, first.high - first.value
    low = gain - math.sqrt(down**2 - 2 * correlation * down * up + up**2)
    down, up = second.high - second.value, first.value - first.low
    high = gain + math.sqrt(down**2 - 2 * correlation * down * up + up**2)
    return low, high


def swap_probability(gains: npt.ArrayLike) -> float:
    """Return the part of all sign patterns of whole numbers whose sum is at least as far from zero."""
    numbers = np.asarray(gains, np.int64)
    sizes = np.abs(numbers[numbers != 0])
    furthest = int(sizes.sum())
    sums = np.zeros(2 * furthest + 1)  # probability of each sum, from -furthest on
    sums[furthest] = 1.0
    for size in sizes.tolist():
        sums = (np.roll(sums, size) + np.roll(sums, -size)) / 2  # what wraps around is zero
    far = np.abs(np.arange(-furthest, furthest + 1)) >= abs(int(numbers.sum()))
    return min(1.0, float(sums[far].sum()))
