"""A run's report: one HTML file with plots, made from records and the files they name, nothing else.

`read` gives the bytes of one file of a record's artifact, so this module does not access the store. What a
record or file does not have is left out of the page, with a note. Plots are SVG inside the page. What is
prepared here is plain text; `report.html.j2` lays it out and escapes it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from flows.stages import EVALUATIONS, TRAINED
from flows.store import Record
from nanochat.errors import ConfigError, DataError
from nanochat.evals.results import ABSENT, benchmark_rows, parse_results
from nanochat.printable import printable
from nanochat.publish.published_scores import published_scores
from nanochat.writing import whole_file

Read = Callable[[Record, str], bytes]
Row = list[str | None]

_PLOTS = {  # title -> the series that it may show, of which a stage has some
    "Training loss": ("train/loss",),
    "Validation": ("val/bpb", "val/loss"),
    "Throughput": ("throughput/tokens_per_s",),
    "Model FLOPs utilization": ("throughput/mfu",),
}
_SERIES = ("metrics.jsonl", "throughput.jsonl")
_MARK = b"<title>nanochat run</title>"  # in every report's first line
_SAMPLES_SHOWN = 12


def build_report(records: Mapping[str, Record], read: Read, target: Path) -> Path:
    """Write the report of the nodes in `records` (node id -> record) to `target`; return it.

    Raises ConfigError where `target` is something else than an earlier report.
    """
    _require_replaceable(target)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = files("flows.display").joinpath("report.html.j2").read_text(encoding="utf-8")
    series = _series(records, read)
    results = _results(records, read)
    published = published_scores(record.to_json() for record in records.values())
    page = environment.from_string(template).render(
        stages=_stages(records),
        corpus=_corpus(records),
        trained=list(series),
        training=_training(records),
        plots=_plots(series),
        models=list(results),
        published=[(one.title, one.source) for one in published],
        benchmarks=[
            (row.label, *row.texts(), *(one.text(row) for one in published))
            for row in benchmark_rows(results)
        ],
        samples=_samples(records, read),
        lineage=_lineage(records),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as part:
        part.write_bytes(printable(page).encode())  # a sample may hold anything, half a character too
    return target


def _require_replaceable(target: Path) -> None:
    if not target.exists():
        return
    if target.is_file():
        with target.open("rb") as file:
            if _MARK in file.read(500):
                return
    raise ConfigError(f"{target} exists and is not a report", hint="name a new file with --out FILE.html")


def _stages(records: Mapping[str, Record]) -> list[Row]:
    rows: list[Row] = []
    for node, record in records.items():
        made = record.provenance
        size = sum(file.size for file in record.files)
        rows.append(
            [
                node,
                made.get("finished_at"),
                _fixed(made.get("seconds"), 1),
                _fixed(made.get("dollars"), 2),
                f"{size:,}",
                record.digest[:12],
            ]
        )
    seconds = [r.provenance.get("seconds") for r in records.values()]
    dollars = [r.provenance.get("dollars") for r in records.values()]
    priced = [d for d in dollars if d is not None]
    total = _fixed(sum(priced), 2) if priced else "unpriced"
    rows.append(["all", "", _fixed(sum(s or 0 for s in seconds), 1), total, "", ""])
    return rows


def _corpus(records: Mapping[str, Record]) -> list[Row]:
    shards = [record.metrics for record in records.values() if record.stage == "tokenize"]
    names = ("documents", "characters", "bytes", "tokens")
    totals = {
        name: sum(s[name] for s in shards)
        for name in names
        if all(isinstance(s.get(name), int) for s in shards)
    }
    if not shards or not totals:
        return []
    rows: list[Row] = [["shards", f"{len(shards):,}"]]
    rows += [[name, f"{value:,}"] for name, value in totals.items()]
    words = totals.get("tokens", 0) - totals.get("documents", 0)  # a document's first token has no bytes
    if "bytes" in totals and words > 0:
        rows.append(["bytes per token", f"{totals['bytes'] / words:.3f}"])
    return rows


def _series(records: Mapping[str, Record], read: Read) -> dict[str, list[dict[str, Any]]]:
    """Return what each training stage measured as it ran."""
    return {
        node: [line for name in _SERIES for line in _json_lines(records[node], read, name)]
        for node in TRAINED
        if node in records
    }


def _training(records: Mapping[str, Record]) -> list[Row]:
    return [
        [node, name, f"{value:,.6g}"]
        for node in TRAINED
        if node in records
        for name, value in records[node].metrics.items()
        if isinstance(value, int | float)
    ]


def _plots(series: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return one row of plots per stage, as SVG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn = []
    for stage, lines in series.items():
        curves = {title: _curves(lines, keys) for title, keys in _PLOTS.items()}
        curves = {title: found for title, found in curves.items() if found}
        if not curves:
            continue
        figure = Figure(figsize=(5 * len(curves), 3.4), layout="constrained")
        axes = figure.subplots(1, len(curves), squeeze=False)[0]
        for axis, (title, found) in zip(axes, curves.items(), strict=True):
            for key, points in found.items():
                mark = "o" if len(points) < 30 else ""
                axis.plot(*zip(*points, strict=True), label=key, marker=mark, markersize=3, linewidth=1.2)
            axis.set(title=f"{stage}: {title}", xlabel="step")
            axis.grid(alpha=0.3)
            axis.legend()
        image = io.BytesIO()
        # No date, no random names: the same records give the same page.
        with rc_context({"svg.hashsalt": stage}):
            FigureCanvasSVG(figure).print_svg(image, metadata={"Date": None})
        text = image.getvalue().decode("utf-8")
        drawn.append(text[text.index("<svg") :])
    return drawn


def _curves(lines: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    found = {
        key: [(line["step"], line[key]) for line in lines if _is_number(line.get(key), line.get("step"))]
        for key in keys
    }
    return {key: points for key, points in found.items() if points}


def _is_number(*values: object) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _results(records: Mapping[str, Record], read: Read) -> dict[str, dict[str, Any]]:
    return {
        model: parse_results(read(record := records[stage.name], "results.json"), _named(record))
        for model, stage in EVALUATIONS.items()
        if stage.name in records
    }


def _samples(records: Mapping[str, Record], read: Read) -> dict[str, list[str]]:
    """Return the last samples of each stage that keeps some."""
    last = {node: _json_lines(record, read, "samples.jsonl") for node, record in records.items()}
    return {
        node: [_sample_text(line) for line in lines[-_SAMPLES_SHOWN:]]
        for node, lines in last.items()
        if lines
    }


def _sample_text(line: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in line.items())


def _lineage(records: Mapping[str, Record]) -> list[Row]:
    rows: list[Row] = []
    for node, record in records.items():
        made = record.provenance
        commit = (made.get("commit") or "unknown")[:12] + (" + local changes" if made.get("dirty") else "")
        inputs = ", ".join(
            f"{name} {len(value)} artifacts"
            if isinstance(value, list | tuple)
            else f"{name} {value['digest'][:12]}"
            for name, value in record.inputs.items()
        )
        rows.append([node, record.key[:12], record.digest[:12], inputs, commit])
    return rows


def _json_lines(record: Record, read: Read, path: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file; none where the artifact has no such file."""
    if path not in {file.path for file in (*record.files, *record.attachments)}:
        return []
    try:
        lines = [json.loads(line) for line in read(record, path).splitlines() if line]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{_named(record)}: {path} is not lines of JSON: {error}", hint=_HINT) from error
    if not all(isinstance(line, dict) for line in lines):
        raise DataError(f"{_named(record)}: a line of {path} is not an object", hint=_HINT)
    return lines


_HINT = "make it again: --force with the stage that made it"


def _named(record: Record) -> str:
    return f"{record.stage}/{record.key[:12]}"


def _fixed(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:,.{digits}f}"
