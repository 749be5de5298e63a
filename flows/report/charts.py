"""The charts of a page as plain numbers: lines over an axis, and bars with their intervals.

Everything is in percent of the plot, so that the template stretches a chart to any width while its text keeps
its size. Colours, dashes and marks belong to the template; each chart has a sentence for who cannot see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.report.axes import Axis, amounts, axis, shares
from flows.report.curves import Point, thinned
from nanochat.evals.intervals import Estimate

_DOTS = 40  # a curve of at most so many points shows each of them


@dataclass(frozen=True)
class PlottedLine:
    """One curve: its points in thousandths of the plot, from the upper left."""

    label: str
    style: str  # of the template: each, first, second
    path: str
    dots: tuple[tuple[float, float], ...]  # percent
    href: str = ""


@dataclass(frozen=True)
class LineChart:
    """Curves in one picture."""

    title: str
    about: str
    x_label: str
    y_label: str
    x: Axis
    y: Axis
    lines: tuple[PlottedLine, ...]


@dataclass(frozen=True, kw_only=True)
class Series:
    """The values of one curve."""

    label: str
    style: str
    points: Sequence[Point]
    href: str = ""


@dataclass(frozen=True)
class Bar:
    """One value as a bar from zero, with the ends of its interval where it has one."""

    label: str
    style: str
    start: float
    length: float
    interval: tuple[float, float] | None
    text: str


@dataclass(frozen=True)
class Mark:
    """A value of somebody else beside the bars."""

    at: float
    label: str
    text: str


@dataclass(frozen=True)
class BarGroup:
    """The bars of one benchmark, one for each model."""

    title: str
    about: str
    axis: Axis
    bars: tuple[Bar, ...]
    chance: float | None
    chance_text: str
    marks: tuple[Mark, ...]
    zero: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """A value to be drawn as a bar."""

    label: str
    style: str
    estimate: Estimate
    exact: bool  # without an interval
    text: str  # beside the bar
    full: str  # with its interval


def line_chart(
    title: str, x_label: str, y_label: str, series: Sequence[Series], *, from_zero: bool = False
) -> LineChart | None:
    """Return a chart of the series that have points; None where none has.

    Values that span several powers of ten are on a logarithmic axis, unless it begins at zero.
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return None
    values = [value for one in drawn for _, value in one.points]
    x, y = (
        amounts(max(x for one in drawn for x, _ in one.points)),
        axis([0.0, *values] if from_zero else values),
    )
    lines = tuple(_line(one, x, y) for one in drawn)
    ends = "; ".join(
        f"{one.label}: {one.points[0][1]:.4g} at first, {one.points[-1][1]:.4g} at the end" for one in drawn
    )
    scale = ", logarithmic" if y.log else ""
    return LineChart(title, f"{title} over {x_label}. {ends}.", x_label, f"{y_label}{scale}", x, y, lines)


def bar_group(
    title: str,
    scores: Sequence[Score],
    *,
    chance: float | None,
    chance_text: str,
    marks: Sequence[tuple[str, float, str]],
    in_percent: bool,
) -> BarGroup:
    """Return the bars of shares of one; `marks` are label, value and text of other people's numbers."""
    ends = [end for one in scores for end in (one.estimate.low, one.estimate.high)]
    others = [value for _, value, _ in marks]
    scale = shares(min(0.0, *ends, *others), max(0.0, *ends, *others), in_percent=in_percent)
    zero = scale.at(0.0)
    said = [f"{one.label} {one.full}" for one in scores] + [f"{label} {text}" for label, _, text in marks]
    about = f"{title}: {'; '.join(said)}" + (f"; chance {chance_text}." if chance is not None else ".")
    return BarGroup(
        title,
        about,
        scale,
        tuple(_bar(one, scale, zero) for one in scores),
        None if chance is None else scale.at(chance),
        chance_text,
        tuple(Mark(scale.at(value), label, text) for label, value, text in marks),
        zero,
    )


def _line(one: Series, x: Axis, y: Axis) -> PlottedLine:
    points = [(x.at(each), round(100 - y.at(value), 2)) for each, value in thinned(one.points)]
    path = " ".join(f"{10 * across:g},{10 * down:g}" for across, down in points)
    return PlottedLine(one.label, one.style, path, tuple(points) if len(points) <= _DOTS else (), one.href)


def _bar(one: Score, scale: Axis, zero: float) -> Bar:
    end = scale.at(one.estimate.value)
    limits = None if one.exact else (scale.at(one.estimate.low), scale.at(one.estimate.high))
    return Bar(one.label, one.style, min(zero, end), round(abs(end - zero), 2), limits, one.text)
