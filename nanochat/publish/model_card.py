"""The model card: every number in it comes from a record or a result, none from the template.

Front matter follows the hub's `model-index` schema. Knows nothing of the store: records come as plain data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from nanochat.config import ModelConfig, PublishConfig
from nanochat.data.chat.task_table import TASKS
from nanochat.evals.contamination.overlap import Overlap
from nanochat.evals.protocol import protocol_lines
from nanochat.evals.results import (
    ABSENT,
    BenchmarkRow,
    benchmark_rows,
    core_label,
    in_order,
    metric_names,
    metric_title,
    percent,
)
from nanochat.printable import printable
from nanochat.publish.published_scores import PublishedScores, published_scores

_MARKDOWN = re.compile(r"[\\`*\[\]<>|]")  # not `_`, which within a word such as arc_easy means nothing
_OTHER_SET = "_of_"  # in the name of a mean over another set than the published one
_ABOUT = {
    "chatcore": "mean over the tasks of accuracy above chance: 0 is guessing, 1 is all right",
    "core": "the same mean over the tasks of DCLM's CORE, for base models",
    "val_bpb": "how well held-out text is predicted; less is better",
}


@dataclass(frozen=True)
class CardInputs:
    """What a card is made from."""

    publish: PublishConfig
    model: ModelConfig
    parameters: int
    results: Mapping[str, Mapping[str, Any]]  # model -> results.json, the published model last
    overlap: Overlap  # of all training text with the evaluation tasks
    records: Mapping[str, Mapping[str, Any]]  # node id -> record of an ancestor, with its stage's title

    @property
    def final(self) -> Mapping[str, Any]:
        """Results of the model that is published."""
        return list(self.results.values())[-1]


def render_model_card(card: CardInputs) -> str:
    """Return the text of `README.md`."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    published = published_scores(card.records.values())
    template = files("nanochat.publish").joinpath("model_card.md.j2").read_text(encoding="utf-8")
    text = environment.from_string(template).render(
        front_matter=yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True).rstrip(),
        title=_quoted(card.publish.title),
        license=_quoted(card.publish.license),
        datasets=[_quoted(name) for name in card.publish.datasets],
        model=card.model,
        parameters=f"{card.parameters:,}",
        stages=_training_stages(card.records),
        corpus=_corpus(card.records),
        hardware=_hardware(card.records),
        seconds=_seconds(card.records),
        cost=_cost(card.records),
        models=list(card.results),
        published=[(one.title, _quoted(one.source)) for one in published],
        benchmarks=_benchmark_table(card, published),
        core_tasks=_core_table(card),
        other_sets=[metric_title(n) for n in metric_names(card.results.values()) if _OTHER_SET in n],
        protocol=_protocol(card.results),
        small_samples=_smallest_sample(card.final),
        overlap=card.overlap,
        overlap_table=_overlap_table(card),
        dropped=_dropped(card.records),
        lineage=_lineage(card.records),
    )
    return printable(text)


def _quoted(text: str) -> str:
    """Return a text from elsewhere as one line that Markdown shows as it is, in a table too."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def front_matter(card: CardInputs) -> dict[str, Any]:
    """Return the card's metadata; of the final model's results those of whole benchmarks."""
    results = []
    tasks = card.final["tasks"]
    for name in in_order(name for name, task in tasks.items() if task["problems"] == task["of"]):
        result = tasks[name]
        title, dataset, metric = _benchmark(name, card.records)
        results.append(_index_entry(title, dataset, metric, round(100 * result["accuracy"], 4)))
    for name in (name for name in metric_names([card.final]) if _OTHER_SET not in name):
        value = round(card.final["metrics"][name], 6)
        results.append(_index_entry(metric_title(name), f"nanochat/{name}", name, value))
    return {
        "language": ["en"],
        "license": card.publish.license,
        "library_name": "nanochat",
        "pipeline_tag": "text-generation",
        "tags": ["text-generation", "transformer", "conversational", "nanochat"],
        "datasets": list(card.publish.datasets),
        "model-index": [{"name": card.publish.title, "results": results}],
    }


def _index_entry(name: str, dataset: str, metric: str, value: float) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": name, "type": dataset},
        "metrics": [{"type": metric, "name": metric, "value": value}],
    }


def _benchmark(name: str, records: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, str]:
    """Return title, data set and metric of a task; the built-in world gets no real benchmark's name."""
    task = TASKS.get(name)
    title, dataset, metric = (
        (task.title, task.repo or f"nanochat/{name}", task.metric) if task else (name, name, "accuracy")
    )
    if _is_toy(records):
        return f"{title} (toy world)", f"nanochat/toy_{name}", metric
    return title, dataset, metric


def _benchmark_table(card: CardInputs, published: Sequence[PublishedScores]) -> list[tuple[str, ...]]:
    """Return rows of name, chance, a value for each model and each published one, and what is asked."""
    rows = []
    for row in benchmark_rows(card.results):
        if row.part != "core":
            chance, *values = row.texts()
            others = [one.text(row) for one in published]
            about = _about(row, card.records)
            rows.append((_benchmark_title(row, card.records), chance or ABSENT, *values, *others, about))
    return rows


def _core_table(card: CardInputs) -> list[tuple[str, ...]]:
    """Return rows of a task of CORE, chance, and a value for each model that was asked any of them."""
    asked = {model: result for model, result in card.results.items() if result["core"]}
    rows = [row for row in benchmark_rows(asked) if row.part == "core"]
    return [("task", "chance", *asked), *((_quoted(row.name), *row.texts()) for row in rows)] if rows else []


def _about(row: BenchmarkRow, records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what a row is about; in the built-in world a task asks about that."""
    if row.part == "metrics":
        return next((text for name, text in _ABOUT.items() if row.name.startswith(name)), "")
    task = TASKS.get(row.name)
    if task is None:
        return ""
    return f"about a small invented world: {', '.join(task.toy)}" if _is_toy(records) else task.about


def _is_toy(records: Mapping[str, Mapping[str, Any]]) -> bool:
    return bool(records.get("tasks", {}).get("payload", {}).get("config", {}).get("toy"))


def _benchmark_title(row: BenchmarkRow, records: Mapping[str, Mapping[str, Any]]) -> str:
    if row.part == "tasks":
        return _quoted(_benchmark(row.name, records)[0])
    if row.part == "samples":
        task, _, what = row.name.partition(" ")
        return _quoted(f"{_benchmark(task, records)[0]} {what}")
    return metric_title(row.name) if row.part == "metrics" else _quoted(row.label)


def _protocol(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of all models' protocols, each once: CORE is asked of the base model only."""
    lines = (line for result in results.values() for line in protocol_lines(result["protocol"]))
    return list(dict.fromkeys(map(_quoted, lines)))


def _smallest_sample(result: Mapping[str, Any]) -> int | None:
    counts = [task["problems"] for part in ("tasks", "core") for task in result.get(part, {}).values()]
    return min(counts, default=None)


def _overlap_table(card: CardInputs) -> list[tuple[str, ...]]:
    """Return rows of name, items, judged items, overlapping items, their part of those judged."""
    found = card.overlap
    named = {_quoted(_benchmark(name, card.records)[0]): task for name, task in found.tasks.items()}
    named |= {_quoted(core_label(name)): task for name, task in found.core.items()}
    return [
        (
            name,
            _number(task.items),
            _number(task.judged),
            _number(len(task.overlapping)),
            percent(task.part),
        )
        for name, task in named.items()
    ]


def _dropped(records: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Return how many documents were left out of the training tokens; None where none were to be."""
    counts = [r["metrics"].get("dropped_documents") for r in records.values() if r["stage"] == "tokenize"]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _training_stages(records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    rows = []
    titled = [record for record in records.values() if record.get("title")]
    for record in sorted(titled, key=lambda record: _trainings_before(record, records)):
        metrics = record["metrics"]
        measure = next((name for name in ("val/bpb", "val/loss") if metrics.get(name) is not None), None)
        rows.append(
            {
                "title": record["title"],
                "steps": _number(metrics.get("steps")),
                "tokens": _number(metrics.get("tokens")),
                "flops": _number(metrics.get("flops"), ".2e"),
                "loss": _number(metrics.get("train/loss"), ".4f"),
                "validation": ABSENT if measure is None else f"{metrics[measure]:.4f} ({measure})",
                "time": _duration(record["provenance"].get("seconds")),
            }
        )
    return rows


def _trainings_before(record: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> int:
    model = record["inputs"].get("model")
    before = records.get(model["node"]) if model else None
    return 0 if before is None else 1 + _trainings_before(before, records)


def _corpus(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str] | None:
    shards = [r["metrics"] for r in records.values() if r["stage"] == "tokenize"]
    if not shards:
        return None
    total = {name: sum(s.get(name, 0) for s in shards) for name in ("documents", "bytes", "tokens")}
    words = total["tokens"] - total["documents"]  # each document begins with a token of no bytes
    return {
        "shards": _number(len(shards)),
        **{name: _number(value) for name, value in total.items()},
        "bytes_per_token": f"{total['bytes'] / words:.3f}" if words > 0 else ABSENT,
    }


def _hardware(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the machines that made anything, each with the stages it made."""
    made: dict[str, dict[str, None]] = {}
    for record in records.values():
        hardware = record["provenance"].get("hardware")
        if hardware:
            made.setdefault(_machine(hardware), {})[record["stage"]] = None
    return [_quoted(f"{machine}: {', '.join(stages)}") for machine, stages in made.items()]


def _machine(hardware: Mapping[str, Any]) -> str:
    memory = f"{hardware['memory_bytes'] / 2**30:.0f} GiB"
    host = f"{hardware['cpu']}, {hardware['cores']} cores, {memory}"
    return f"{hardware['gpus']} x {hardware['gpu']} ({host})" if hardware.get("gpu") else host


def _seconds(records: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return stage, number of executions and their summed time; the last row is the total."""
    by_stage: dict[str, list[float]] = {}
    for record in records.values():
        by_stage.setdefault(record["stage"], []).append(record["provenance"].get("seconds") or 0.0)
    rows = [(stage, str(len(times)), _duration(sum(times))) for stage, times in by_stage.items()]
    total = [seconds for times in by_stage.values() for seconds in times]
    return [*rows, ("all", str(len(total)), _duration(sum(total)))]


def _cost(records: Mapping[str, Mapping[str, Any]]) -> str:
    dollars = [record["provenance"].get("dollars") for record in records.values()]
    known = [value for value in dollars if value is not None]
    if not known:
        return "Unpriced: no price per hour was set for the machines that made this model."
    text = f"${sum(known):,.2f}"
    missing = len(dollars) - len(known)
    return f"{text}; {missing} of {len(dollars)} executions are unpriced." if missing else f"{text}."


def _lineage(records: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Return node, key prefix, digest, commit."""
    return [
        (_quoted(node), record["key"][:12], record["digest"], _commit(record["provenance"]))
        for node, record in records.items()
    ]


def _commit(provenance: Mapping[str, Any]) -> str:
    commit = provenance.get("commit")
    if not commit:
        return "unknown"
    return f"{commit[:12]} with local changes" if provenance.get("dirty") else str(commit[:12])


def _number(value: float | None, form: str = ",.0f") -> str:
    return ABSENT if value is None else format(value, form)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ABSENT
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
