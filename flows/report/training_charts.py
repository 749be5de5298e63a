"""Which curves of a training are shown, what their axes are called, and how two runs share a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.report.charts import LineChart, Series, line_chart
from flows.report.comparability import Comparability
from flows.report.curves import Point, TrainingCurves, mean_of_pieces, training_curves
from flows.report.record_links import link
from flows.report.recorded_run import RecordedRun, named
from flows.stages import TRAINED


@dataclass(frozen=True)
class Measure:
    """One kind of number that a training leaves as a curve."""

    name: str
    title: str
    unit: str
    noisy: bool  # of each step, so a mean is drawn over it
    rate: bool = False  # drawn from zero


MEASURES = (
    Measure("train/loss", "Training loss", "nats per token", True),
    Measure("val/bpb", "Validation", "bits per byte", False),
    Measure("val/loss", "Validation loss", "nats per token", False),
    Measure("throughput/tokens_per_s", "Throughput", "tokens per second", True, rate=True),
)


def curves_of(run: RecordedRun) -> dict[str, TrainingCurves]:
    """Return what each training of a run measured; what cannot be read becomes a problem of the run."""
    found = {}
    for node in run.trained():
        metrics, speeds = (run.lines(node, name) for name in ("metrics.jsonl", "throughput.jsonl"))
        found[node] = curves = training_curves(metrics, speeds, run.records[node].metrics)
        if curves.left_out:
            run.note(f"{named(run.records[node])}: {curves.left_out:,} numbers of its curves are not finite")
        if not curves.by_name:
            run.note(f"{named(run.records[node])}: it has no curves")
    return found


def charts_of(run: RecordedRun, curves: Mapping[str, TrainingCurves]) -> dict[str, list[LineChart]]:
    """Return the charts of each training of a run."""
    return {node: _charts(node, link(run.records[node]), curves[node]) for node in curves}


def shared_charts(
    names: Sequence[str], runs: Sequence[Mapping[str, TrainingCurves]], known: Comparability
) -> dict[str, list[LineChart]]:
    """Return the charts of two runs, both in each; what is alike or cannot be compared is left out."""
    found: dict[str, list[LineChart]] = {}
    for node in [name for name in TRAINED if any(name in run for run in runs)]:
        both = [run.get(node) for run in runs]
        units = {curves.unit for curves in both if curves}
        if both[0] == both[1] or len(units) > 1:
            continue
        for measure in MEASURES:
            if not known.allows(measure.name):
                continue
            series = [
                Series(label=name, style=style, points=_calm(measure, curves.of(measure.name)))
                for name, style, curves in zip(names, ("first", "second"), both, strict=True)
                if curves
            ]
            chart = line_chart(measure.title, _read(*units), measure.unit, series, from_zero=measure.rate)
            if chart:
                found.setdefault(node, []).append(chart)
    return found


def _charts(node: str, href: str, curves: TrainingCurves) -> list[LineChart]:
    charts = []
    for measure in MEASURES:
        points = curves.of(measure.name)
        series = [Series(label=measure.name, style="first", points=points, href=href)]
        if measure.noisy and points:
            width, mean = mean_of_pieces(points)
            if width > 1:
                each = Series(label="each step", style="each", points=points, href=href)
                series = [
                    each,
                    Series(label=f"mean of {width:,} steps", style="first", points=mean, href=href),
                ]
        chart = line_chart(measure.title, _read(curves.unit), measure.unit, series, from_zero=measure.rate)
        if chart:
            charts.append(chart)
    return charts


def _calm(measure: Measure, points: Sequence[Point]) -> Sequence[Point]:
    return mean_of_pieces(points)[1] if measure.noisy else points


def _read(unit: str) -> str:
    return f"{unit} trained on" if unit == "tokens" else unit
