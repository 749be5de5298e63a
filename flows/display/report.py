"""A run's report: one HTML file with plots, made from records and the files they name, nothing else.

`read` gives the bytes of one file of a record's artifact, so this module knows no store. What a record or
file does not have is left out of the page; what is missing is said. Plots are SVG inside the page.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.store import Record
from nanochat.evals.results import benchmark_rows

Read = Callable[[Record, str], bytes]

_TRAINING = ("pretrain", "midtrain", "sft")
_EVALUATIONS = {"base": "evaluate_base", "mid": "evaluate_mid", "sft": "evaluate_sft"}
_PLOTS = {  # title -> the series that it may show, of which a stage has some
    "Training loss": ("train/loss",),
    "Validation": ("val/bpb", "val/loss"),
    "Throughput": ("throughput/tokens_per_s",),
    "Model FLOPs utilization": ("throughput/mfu",),
}
_SAMPLES_SHOWN = 12
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left }
pre { background: #f5f5f5; padding: .6rem; white-space: pre-wrap } svg { max-width: 100%; height: auto }
"""


def build_report(records: Mapping[str, Record], read: Read, target: Path) -> Path:
    """Write the report of the nodes in `records` (node id -> record) to `target`; return it."""
    parts = [
        "<h1>nanochat run</h1>",
        _section("Stages", _stages(records)),
        _section("Corpus", _corpus(records)),
        _section("Training", _training(records, read)),
        _section("Benchmarks", _benchmarks(records, read)),
        _section("Samples", _samples(records, read)),
        _section("Lineage", _lineage(records)),
    ]
    page = "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>nanochat run</title>',
            f"<style>{_STYLE}</style></head><body>",
            *parts,
            "</body></html>\n",
        ]
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return target


def _stages(records: Mapping[str, Record]) -> str:
    rows = []
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
    return _table(["stage", "made", "seconds", "dollars", "bytes", "digest"], rows)


def _corpus(records: Mapping[str, Record]) -> str:
    shards = [record.metrics for record in records.values() if record.stage == "tokenize"]
    names = ("documents", "characters", "bytes", "tokens")
    totals = {name: sum(s[name] for s in shards) for name in names if all(name in s for s in shards)}
    if not shards or not totals:
        return ""
    rows = [["shards", f"{len(shards):,}"], *([name, f"{value:,}"] for name, value in totals.items())]
    words = totals.get("tokens", 0) - totals.get("documents", 0)  # a document's first token has no bytes
    if "bytes" in totals and words > 0:
        rows.append(["bytes per token", f"{totals['bytes'] / words:.3f}"])
    return _table(["", ""], rows)


def _training(records: Mapping[str, Record], read: Read) -> str:
    series: dict[str, list[dict[str, Any]]] = {}
    rows = []
    for node in _TRAINING:
        if node not in records:
            continue
        record = records[node]
        lines = [*_json_lines(record, read, "metrics.jsonl"), *_json_lines(record, read, "throughput.jsonl")]
        series[node] = lines
        numbers = {k: v for k, v in record.metrics.items() if isinstance(v, int | float)}
        rows += [[node, name, f"{value:,.6g}"] for name, value in numbers.items()]
    if not series:
        return ""
    return _table(["stage", "metric", "value"], rows) + _plots(series)


def _plots(series: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
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
    return "\n".join(drawn)


def _curves(lines: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    found = {key: [(line["step"], line[key]) for line in lines if line.get(key) is not None] for key in keys}
    return {key: points for key, points in found.items() if points}


def _benchmarks(records: Mapping[str, Record], read: Read) -> str:
    results = {
        model: json.loads(read(records[node], "results.json"))
        for model, node in _EVALUATIONS.items()
        if node in records
    }
    if not results:
        return ""
    rows = [[row.label, *row.texts()] for row in benchmark_rows(results)]
    return _table(["benchmark", "chance", *results], rows)


def _samples(records: Mapping[str, Record], read: Read) -> str:
    """Return the last samples of each stage that keeps some."""
    parts = []
    for node, record in records.items():
        lines = _json_lines(record, read, "samples.jsonl")[-_SAMPLES_SHOWN:]
        if lines:
            shown = "\n".join(f"<pre>{html.escape(_sample_text(line))}</pre>" for line in lines)
            parts.append(f"<h3>{html.escape(node)}</h3>\n{shown}")
    return "\n".join(parts)


def _sample_text(line: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in line.items())


def _lineage(records: Mapping[str, Record]) -> str:
    rows = []
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
    return _table(["artifact", "key", "digest", "made from", "at commit"], rows)


def _json_lines(record: Record, read: Read, path: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file; none where the artifact has no such file."""
    if path not in {file.path for file in (*record.files, *record.attachments)}:
        return []
    return [json.loads(line) for line in read(record, path).splitlines() if line]


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>\n{body or '<p>Nothing of this kind was made.</p>'}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an HTML table; every cell is escaped."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = ["".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row) for row in rows]
    return f"<table><tr>{top}</tr>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def _cell(value: object) -> str:
    return "–" if value is None else str(value)


def _fixed(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
