"""Axes of charts: where values lie, in percent of the length, and which of them carry a label.

Positions are percentages, so that a chart is drawn once and stretched by the page to any width. Nothing here
knows what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)  # what a distance of ticks may be, times a power of ten
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_SMALLEST_STEP = 1e-5
_NOTHING = 1e-200  # what is smaller is drawn as zero: there, distances of ticks have too few digits
_SAME = 1e-12  # values this close, as parts of the larger one, differ by how sums are rounded
_LARGEST = 1e18  # with a prefix: FLOPs are more
_LOG_FROM = 20.0  # the largest value is this many times the smallest: less is read off a linear axis


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float  # percent of the axis
    label: str


@dataclass(frozen=True)
class Axis:
    """A range of values on a linear or logarithmic scale, and its ticks."""

    low: float
    high: float
    log: bool
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """Return where a value lies, in percent; what is outside lies on the edge."""
        return _share(value, self.low, self.high, log=self.log)


def axis(values: Sequence[float], *, about: int = 5) -> Axis:
    """Return an axis that holds all values, logarithmic where they span more than a linear one can show."""
    plain = [value if abs(value) >= _NOTHING else 0.0 for value in values]
    low, high = min(plain), max(plain)
    if low > 0 and high / low >= _LOG_FROM:
        return _log_axis(low, high)
    if high - low <= _SAME * max(abs(low), abs(high)):
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    step = _step((high - low) / about)
    return _linear(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step)


def amounts(most: float, *, about: int = 4) -> Axis:
    """Return a linear axis from zero to just `most`, as of tokens trained on."""
    most = most if most >= _NOTHING else 1.0
    step = _step(most / about)
    return _linear(0.0, most, step)


def shares(low: float, high: float, *, in_percent: bool) -> Axis:
    """Return an axis for shares of one; it holds zero, and goes to one where no value is below zero."""
    form = _percent if in_percent else "{:.3g}".format
    if low >= 0 and high <= 1:
        return Axis(0.0, 1.0, False, tuple(Tick(100 * value, form(value)) for value in (0.0, 0.5, 1.0)))
    step = _step((max(high, 0.0) - min(low, 0.0)) / 3)
    first, last = math.floor(low / step + 1e-9), max(math.ceil(high / step - 1e-9), 0)
    bottom, top = first * step, last * step
    values = [step * number for number in range(first, last + 1)]
    return Axis(bottom, top, False, tuple(Tick(_share(v, bottom, top), form(v)) for v in values))


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def short(value: float, step: float | None = None) -> str:
    """Return a number as short as it can be, `1.5 M`; with `step`, with the digits that tell two apart."""
    size = max(abs(value), abs(step or 0))
    if size >= _LARGEST:
        return f"{value:.2e}"
    scale, unit = next(((s, u) for s, u in _PREFIXES if size >= s), (1.0, ""))
    text = f"{value / scale:.3g}" if step is None else f"{value / scale:.{_digits(step / scale)}f}"
    return f"{text} {unit}".strip()


def _digits(step: float) -> int:
    """Return how many decimals tell apart numbers that are at least this far from each other."""
    return next((digits for digits in range(8) if math.isclose(round(step, digits), step, rel_tol=1e-6)), 8)


def _linear(low: float, high: float, step: float) -> Axis:
    first = math.ceil(low / step - 1e-9)
    values = [step * number for number in range(first, math.floor(high / step + 1e-9) + 1)]
    ticks = tuple(Tick(_share(value, low, high), _label(value, step)) for value in values)
    return Axis(low, high, False, ticks)


def _label(value: float, step: float) -> str:
    if abs(value) < step / 1e6:
        return "0"
    if step < _SMALLEST_STEP:  # decimals would be a row of zeros
        return f"{value:.{max(math.ceil(math.log10(abs(value) / step)), 0) + 1}g}"
    return short(value, step)


def _log_axis(low: float, high: float) -> Axis:
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    stride = max(1, round((last - first) / 5))
    bottom, top = 10.0**first, 10.0**last
    exponents = range(first, last + 1, stride)
    ticks = tuple(Tick(_share(10.0**e, bottom, top, log=True), _power(e)) for e in exponents)
    return Axis(bottom, top, True, ticks)


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if exponent < 3 else short(10.0**exponent)


def _step(least: float) -> float:
    """Return the smallest round distance of ticks that is at least this."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * step for step in _STEPS if power * step >= least * (1 - 1e-9))


def _share(value: float, low: float, high: float, *, log: bool = False) -> float:
    if log:
        value, low, high = (math.log10(max(each, 1e-300)) for each in (value, low, high))
    return round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 2)
