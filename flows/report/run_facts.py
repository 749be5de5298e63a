"""What a report says of a run in words and numbers: model, headline, time and money, data, trainings.

Each number comes with the address of the record that it is from; a sum, with that of its stage's records.
Plain text only: the template escapes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flows.display.quantities import bytes_text, duration, is_number
from flows.report.axes import short
from flows.report.cells import Cell
from flows.report.record_links import link, link_of_stage, moment
from flows.report.recorded_run import RecordedRun, named
from flows.run.headline import headline
from flows.stages import EVALUATIONS, PRETRAIN, PUBLISH, RENDER
from flows.store import Record
from nanochat.evals.results import ABSENT, interval_text, is_mean, measure_text, metric_interval, metric_title

Results = Mapping[str, Mapping[str, Any]]
_SHARD_COUNTS = ("documents", "bytes", "tokens")


@dataclass(frozen=True)
class Figure:
    """One number that a run is known by."""

    label: str
    value: str
    note: str
    href: str


@dataclass(frozen=True)
class StageEffort:
    """Time and money of a stage, and how much of the longest and the dearest stage that is, in percent."""

    stage: str
    href: str
    parts: int
    time: str
    time_share: float
    dollars: str
    dollar_share: float


def links_of_models(run: RecordedRun) -> dict[str, str]:
    """Return the address of each evaluation by the name of its model."""
    return {
        model: link(run.records[stage.name])
        for model, stage in EVALUATIONS.items()
        if stage.name in run.records
    }


def description(run: RecordedRun) -> list[tuple[str, str, str]]:
    """Return label, text and address of what was trained, where, when and from which code."""
    records = list(run.records.values())
    found: list[tuple[str, str, str]] = []
    published = run.records.get(PUBLISH.name)
    if published:
        title = str(_config(published).get("title") or named(published))
        found.append(("model", f"{title}, digest {published.digest[:12]}", link(published)))
    trained = (run.records[name] for name in run.trained())
    shaped = next((record for record in trained if _model(record)), None)
    if shaped:
        found.append(("architecture", _shape(_model(shaped)), link(shaped)))
    found.append(("made", _when(records), ""))
    found += [("on", machine, "") for machine in dict.fromkeys(filter(None, map(_machine, records)))]
    commits = dict.fromkeys(
        str(r.provenance.get("commit") or "an unknown commit")[:12]
        + (" + local changes" if r.provenance.get("dirty") else "")
        for r in records
    )
    found.append(("from code", ", ".join(commits), ""))
    return found


def absent(run: RecordedRun) -> list[tuple[str, str]]:
    """Return the nodes that have no record, in one line per stage and reason, and the reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node, reason in run.absent.items():
        groups.setdefault((node.partition("/")[0], reason), []).append(node)
    return [
        (nodes[0] if len(nodes) == 1 else f"{nodes[0]} and {len(nodes) - 1:,} more of {stage}", reason)
        for (stage, reason), nodes in groups.items()
    ]


def figures(run: RecordedRun, results: Results) -> list[Figure]:
    """Return the numbers that a run is known by: scores first, then size, then effort."""
    numbers = headline(run.records)
    trained = run.trained()
    base = run.records[trained[0]] if trained else None
    found = _score_figures(run, results)
    if base and is_number(numbers.get("val/bpb")):
        found.append(
            Figure(
                "Bits per byte",
                f"{numbers['val/bpb']:.4f}",
                f"validation text, after {base.stage}",
                link(base),
            )
        )
    if trained:
        last = link(run.records[trained[-1]])
        sums = {"parameters": "Parameters", "tokens": "Tokens trained on", "flops": "FLOPs"}
        for name, label in sums.items():
            if name in numbers:
                note = "of all trainings" if name == "flops" else f"{numbers[name]:,.0f}"
                found.append(
                    Figure(label, short(numbers[name]), note, last if name == "parameters" else "#training")
                )
    found.append(Figure("Time", duration(3600 * numbers.get("hours", 0)), "of all stages", "#cost"))
    dollars = numbers.get("dollars")
    found.append(Figure("Cost", "unpriced" if dollars is None else f"${dollars:,.2f}", _priced(run), "#cost"))
    return found


def stage_costs(run: RecordedRun) -> list[StageEffort]:
    """Return time and money by stage, and the sum of all as the last row."""
    groups: dict[str, list[Record]] = {}
    for record in run.records.values():
        groups.setdefault(record.stage, []).append(record)
    times = {stage: _sum(r.provenance.get("seconds") for r in group) for stage, group in groups.items()}
    prices = {stage: _sum(r.provenance.get("dollars") for r in group) for stage, group in groups.items()}
    rows = [
        StageEffort(
            stage,
            link(group[0]) if len(group) == 1 else link_of_stage(stage),
            len(group),
            _time(times[stage]),
            _part(times[stage], times.values()),
            _dollars(prices[stage]),
            _part(prices[stage], prices.values()),
        )
        for stage, group in groups.items()
    ]
    total = StageEffort(
        "all", "", len(run.records), _time(_sum(times.values())), 0, _dollars(_sum(prices.values())), 0
    )
    return [*rows, total]


def text_rows(run: RecordedRun) -> list[list[Cell]]:
    """Return a row for each use of text: name, shards, documents, bytes, tokens, bytes per token."""
    shards = {node: r for node, r in run.records.items() if r.stage == "tokenize"}
    base = run.records.get(PRETRAIN.name)
    held_out = _nodes(base, "val_tokens") if base else set()
    uses = {
        "training text": [r for node, r in shards.items() if node not in held_out],
        "validation text": [r for node, r in shards.items() if node in held_out],
    }
    return [_text_row(use, records) for use, records in uses.items() if records]


def conversation_table(run: RecordedRun) -> tuple[list[str], list[list[Cell]]]:
    """Return the head and the rows of how many conversations of each task each training read."""
    mixtures = {node.partition("/")[2]: r for node, r in run.records.items() if r.stage == RENDER.name}
    rows_of = {name: _mapping(record.metrics.get("rows")) for name, record in mixtures.items()}
    tasks = dict.fromkeys(task for rows in rows_of.values() for task in rows)
    rows = [
        [
            Cell(task),
            *(
                Cell(_count(_mapping(rows_of[name].get(task)).get("used")), link(mixtures[name]))
                for name in mixtures
            ),
        ]
        for task in tasks
    ]
    held_out = [
        Cell(
            _count(_sum(_mapping(each).get("held_out") for each in rows_of[name].values())),
            link(mixtures[name]),
        )
        for name in mixtures
    ]
    return ["conversations of", *mixtures], [
        *rows,
        [Cell("held out to validate on"), *held_out],
    ] if rows else []


def training_table(run: RecordedRun) -> tuple[list[str], list[list[Cell]]]:
    """Return the head and the rows of all numbers that the trainings left in their records."""
    trained = {name: run.records[name] for name in run.trained()}
    names = dict.fromkeys(
        name
        for r in trained.values()
        for name, value in r.metrics.items()
        if isinstance(value, int | float | str)
    )
    rows = [
        [Cell(name), *(Cell(_value(r.metrics.get(name)), link(r)) for r in trained.values())]
        for name in names
    ]
    return ["", *trained], rows


def notes(run: RecordedRun) -> list[tuple[str, str, str]]:
    """Return record, address and text of the remarks that stages left."""
    return [
        (node, link(record), str(text))
        for node, record in run.records.items()
        if isinstance(remarks := record.metrics.get("notes"), list)
        for text in remarks
    ]


def _score_figures(run: RecordedRun, results: Results) -> list[Figure]:
    """Return the means over tasks: that of chat tasks of the last model, CORE of the first that has it."""
    found: dict[str, Figure] = {}
    links = links_of_models(run)
    for model, result in reversed(list(results.items())):
        for name in result["metrics"]:
            value = result["metrics"][name]
            part = name.partition("_")[0]
            if not is_mean(name) or value is None or part in found:
                continue
            interval = metric_interval(name, result)
            limits = f"{interval_text('metrics', interval)}, " if interval else ""
            found[part] = Figure(
                metric_title(name), measure_text("metrics", value), f"{limits}{model}", links.get(model, "")
            )
    return list(found.values())


def _text_row(use: str, records: list[Record]) -> list[Cell]:
    href = link(records[0]) if len(records) == 1 else link_of_stage("tokenize")
    totals = {name: _sum(r.metrics.get(name) for r in records) for name in _SHARD_COUNTS}
    documents, size, tokens = (totals[name] for name in _SHARD_COUNTS)
    words = (tokens or 0) - (documents or 0)  # a document's first token has no bytes
    ratio = f"{size / words:.3f}" if size and words > 0 else ABSENT
    cells = [
        _count(len(records)),
        _count(documents),
        bytes_text(size) if size else ABSENT,
        _count(tokens),
        ratio,
    ]
    return [Cell(use), *(Cell(text, href) for text in cells)]


def _shape(model: Mapping[str, Any]) -> str:
    known = {name: model.get(name) for name in ("n_layer", "n_embd", "n_head", "vocab_size", "sequence_len")}
    if not all(isinstance(value, int) for value in known.values()):
        return ", ".join(f"{name} {value}" for name, value in model.items())
    return (
        f"{model.get('architecture')}: {known['n_layer']} layers of width {known['n_embd']:,},"
        f" {known['n_head']} heads, {known['vocab_size']:,} tokens, context {known['sequence_len']:,}"
    )


def _when(records: Iterable[Record]) -> str:
    times = sorted(str(t) for r in records if (t := r.provenance.get("finished_at")) is not None)
    if not times:
        return "at an unknown time"
    first, last = moment(times[0]), moment(times[-1])
    return last if first == last else f"{first} to {last}"


def _machine(record: Record) -> str:
    hardware = _mapping(record.provenance.get("hardware"))
    if not hardware:
        return ""
    host = f"{hardware.get('cpu')}, {hardware.get('cores')} cores"
    return f"{hardware.get('gpus')} x {hardware['gpu']} ({host})" if hardware.get("gpu") else host


def _priced(run: RecordedRun) -> str:
    prices = [r.provenance.get("dollars") for r in run.records.values()]
    missing = sum(price is None for price in prices)
    if missing == len(prices):
        return "no price per hour was set"
    return f"{missing:,} of {len(prices):,} executions are unpriced" if missing else "of all stages"


def _config(record: Record) -> Mapping[str, Any]:
    return _mapping(record.payload.get("config"))


def _model(record: Record) -> Mapping[str, Any]:
    return _mapping(_config(record).get("model"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _nodes(record: Record, name: str) -> set[str]:
    value = record.inputs.get(name)
    return {
        str(_mapping(each).get("node")) for each in (value if isinstance(value, list | tuple) else [value])
    }


def _sum(values: Iterable[object]) -> float | None:
    known = [value for value in values if is_number(value)]
    return sum(known) if known else None


def _part(value: float | None, values: Iterable[float | None]) -> float:
    most = max((each for each in values if each), default=0.0)
    return round(100 * (value or 0) / most, 2) if most else 0.0


def _time(seconds: float | None) -> str:
    return ABSENT if seconds is None else duration(seconds)


def _dollars(dollars: float | None) -> str:
    return "unpriced" if dollars is None else f"${dollars:,.2f}"


def _count(value: object) -> str:
    return f"{value:,.0f}" if is_number(value) else ABSENT


def _value(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ABSENT if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
