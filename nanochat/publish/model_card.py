"""The model card: every number in it comes from a record or a result, none from the template.

What no record knows, such as who made the model, the recipe says (`publish.card`). Knows nothing of the
store: records come as plain data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from nanochat.config import CitationConfig
from nanochat.data.chat.task_table import TASKS
from nanochat.evals.protocol import protocol_lines
from nanochat.evals.results import (
    ABSENT,
    BenchmarkRow,
    benchmark_rows,
    core_label,
    metric_names,
    metric_title,
    percent,
)
from nanochat.printable import printable
from nanochat.publish import training_facts
from nanochat.publish.card_inputs import CardInputs, Records, is_toy, quoted
from nanochat.publish.front_matter import OTHER_SET, dataset_of, front_matter
from nanochat.publish.published_scores import PublishedScores, published_scores

_ABOUT = {
    "chatcore": "mean over the tasks of accuracy above chance: 0 is guessing, 1 is all right",
    "core": "the same mean over the tasks of DCLM's CORE, for base models",
    "val_bpb": "how well held-out text is predicted; less is better",
}
_LANGUAGES = {
    **{"ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "hi": "Hindi"},
    **{"it": "Italian", "ja": "Japanese", "ko": "Korean", "pt": "Portuguese", "ru": "Russian"},
    **{"zh": "Chinese"},
}
_BIBTEX = re.compile(r"[\\{}`\"]")


def render_model_card(card: CardInputs) -> str:
    """Return the text of `README.md`."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = files("nanochat.publish").joinpath("model_card.md.j2").read_text(encoding="utf-8")
    facts = {**_description(card), **_training(card), **_performance(card)}
    return printable(environment.from_string(template).render(facts))


def _description(card: CardInputs) -> dict[str, Any]:
    """Return what the recipe says of the model."""
    about = card.publish.card
    texts = ("summary", "developed_by", "trained_by", "author", "base_model", "corpus", "infrastructure")
    lists = ("uses", "downstream_uses", "out_of_scope_uses", "limitations")
    matter = yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True, width=math.inf)
    return {
        "front_matter": matter.rstrip(),
        "title": quoted(card.publish.title),
        "license": quoted(card.publish.license),
        "datasets": [quoted(name) for name in card.publish.datasets],
        "languages": ", ".join(_LANGUAGES.get(code, code) for code in about.languages),
        **{name: quoted(getattr(about, name)) for name in texts},
        **{name: [quoted(text) for text in getattr(about, name)] for name in lists},
        "repository": about.repository,  # it and the links: nothing in their pattern ends <…>
        "links": about.links,
        "citation": _citation(about.citation, about.repository),
        "model": card.model,
        "parameters": f"{card.parameters:,}",
    }


def _training(card: CardInputs) -> dict[str, Any]:
    records = card.records
    return {
        "stages": training_facts.training_stages(records),
        "text": training_facts.corpus(records),
        "hardware": training_facts.hardware(records),
        "seconds": training_facts.seconds(records),
        "flops": training_facts.total_flops(records),
        "cost": training_facts.cost(records),
        "dropped": training_facts.dropped(records),
        "lineage": _lineage(records),
    }


def _performance(card: CardInputs) -> dict[str, Any]:
    published = published_scores(card.records.values())
    return {
        "models": list(card.results),
        "published": [(one.title, quoted(one.source)) for one in published],
        "benchmarks": _benchmark_table(card, published),
        "core_tasks": _core_table(card),
        "other_sets": [metric_title(n) for n in metric_names(card.results.values()) if OTHER_SET in n],
        "protocol": _protocol(card.results),
        "small_samples": _smallest_sample(card.final),
        "overlap": card.overlap,
        "overlap_table": _overlap_table(card),
    }


def _citation(citation: CitationConfig, url: str) -> list[tuple[str, str]]:
    """Return the fields of a BibTeX entry after its key; braces and quotes in them would end it."""
    fields = {"author": citation.author, "title": citation.title, "year": citation.year, "url": url}
    named = [(name, " ".join(_BIBTEX.sub("", text).split())) for name, text in fields.items()]
    return [("key", citation.key), *named]


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
    return [("task", "chance", *asked), *((quoted(row.name), *row.texts()) for row in rows)] if rows else []


def _about(row: BenchmarkRow, records: Records) -> str:
    """Return what a row is about; in the built-in world a task asks about that."""
    if row.part == "metrics":
        return next((text for name, text in _ABOUT.items() if row.name.startswith(name)), "")
    task = TASKS.get(row.name)
    if task is None:
        return ""
    return f"about a small invented world: {', '.join(task.toy)}" if is_toy(records) else task.about


def _benchmark_title(row: BenchmarkRow, records: Records) -> str:
    if row.part == "tasks":
        return quoted(dataset_of(row.name, records)["name"])
    if row.part == "samples":
        task, _, what = row.name.partition(" ")
        return quoted(f"{dataset_of(task, records)['name']} {what}")
    return metric_title(row.name) if row.part == "metrics" else quoted(row.label)


def _protocol(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of all models' protocols, each once: CORE is asked of the base model only."""
    lines = (line for result in results.values() for line in protocol_lines(result["protocol"]))
    return list(dict.fromkeys(map(quoted, lines)))


def _smallest_sample(result: Mapping[str, Any]) -> int | None:
    counts = [task["problems"] for part in ("tasks", "core") for task in result.get(part, {}).values()]
    return min(counts, default=None)


def _overlap_table(card: CardInputs) -> list[tuple[str, ...]]:
    """Return rows of name, items, judged items, overlapping items, their part of those judged."""
    found = card.overlap
    named = {quoted(dataset_of(name, card.records)["name"]): task for name, task in found.tasks.items()}
    named |= {quoted(core_label(name)): task for name, task in found.core.items()}
    return [
        (
            name,
            training_facts.number(task.items),
            training_facts.number(task.judged),
            training_facts.number(len(task.overlapping)),
            percent(task.part),
        )
        for name, task in named.items()
    ]


def _lineage(records: Records) -> list[tuple[str, str, str, str]]:
    """Return node, key prefix, digest, commit."""
    return [
        (quoted(node), record["key"][:12], record["digest"], _commit(record["provenance"]))
        for node, record in records.items()
    ]


def _commit(provenance: Mapping[str, Any]) -> str:
    commit = provenance.get("commit")
    if not commit:
        return "unknown"
    return quoted(f"{commit[:12]} with local changes" if provenance.get("dirty") else str(commit[:12]))
