"""What people compare runs by: scores, size, tokens, time, money, and the published model, from records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flows.display.quantities import is_number
from flows.stages import PUBLISH, TRAINED
from flows.store import Record
from nanochat.data.chat.task_table import TASKS
from nanochat.evals.results import is_mean
from nanochat.tracking import PublishedModel

_SHOWN = ("val/bpb", "val/loss", "train/loss", "bytes_per_token", "tokens")


def headline(records: Mapping[str, Record]) -> dict[str, float]:
    """Return numbers by name; what no record knows is left out.

    CORE and `val/bpb` are of the first trained model, chat scores of the last; sums are over all trainings
    (tokens, FLOPs) or all nodes (hours, dollars), whenever they were made.
    """
    trained = [stage for name, stage in TRAINED.items() if name in records]
    trainings = [records[stage.name].metrics for stage in trained]
    found: dict[str, Any] = {}
    if trained:
        base, last = (_scores(records, stage.evaluated_by) for stage in (trained[0], trained[-1]))
        found = {name: value for name, value in base.items() if name.startswith("core")}
        found |= {name: value for name, value in last.items() if not name.startswith("core")}
        found["val/bpb"] = trainings[0].get("val/bpb")
        found["parameters"] = trainings[-1].get("parameters")
    made = [record.provenance for record in records.values()]
    seconds = _sum(provenance.get("seconds") for provenance in made)
    found |= {
        "tokens": _sum(metrics.get("tokens") for metrics in trainings),
        "flops": _sum(metrics.get("flops") for metrics in trainings),
        "hours": None if seconds is None else seconds / 3600,
        "dollars": _sum(provenance.get("dollars") for provenance in made),
    }
    return {name: float(value) for name, value in found.items() if is_number(value)}


def published_model(recipe: str, records: Mapping[str, Record]) -> PublishedModel | None:
    """Return what MLflow is to register of a run; None if it did not publish."""
    record = records.get(PUBLISH.name)
    if record is None:
        return None
    ref = f"{record.stage}/{record.key[:12]}"
    return PublishedModel(
        name=re.sub(r"[^\w-]", "-", f"nanochat-{recipe}"),  # MLflow takes no dot in it
        key=record.key,
        digest=record.digest,
        params={"recipe": recipe, "record": ref, **{k: str(v) for k, v in record.metrics.items()}},
        description=f"`nanochat chat {ref}` answers with it, `nanochat export {ref} DIR` writes its files.",
    )


def brief(metrics: Mapping[str, Any]) -> str:
    """Return the one or two numbers of a stage that say most, as text."""
    parts = [f"{k} {v:.4g}" for k in _SHOWN if is_number(v := metrics.get(k))]
    return ", ".join(parts[:2])


def _scores(records: Mapping[str, Record], evaluation: Any) -> dict[str, float]:
    """Return accuracies of chat tasks and means over tasks that an evaluation found."""
    record = records.get(evaluation.name) if evaluation else None
    named = {name.removeprefix("eval/"): value for name, value in record.metrics.items()} if record else {}
    return {name: value for name, value in named.items() if name in TASKS or is_mean(name)}


def _sum(values: Any) -> float | None:
    known = [value for value in values if is_number(value)]
    return sum(known) if known else None
