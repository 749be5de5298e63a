"""What MLflow should show of a stage that an earlier run made, from the stage's record and its files.

What of it is missing there, after an outage, a kill or a busy database, is for `nanochat.tracking` to find
out. Nothing is read from the store before it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from flows.plan import Plan
from flows.store import Record, Store
from nanochat.tracking import History, Made, Point, run_tags


def made_earlier(plan: Plan, store: Store, node_id: str, record: Record) -> Made | None:
    """Return a hit of a plan as the run that made it would have shown it; None if that is not on record."""
    made = record.provenance
    try:
        started, finished = (_milliseconds(made[name]) for name in ("started_at", "finished_at"))
    except (KeyError, TypeError, ValueError):
        return None
    prefect = made.get("prefect") or {}
    recipe = made.get("recipe") or plan.recipe.name
    return Made(
        node=node_id,
        tags={
            "nanochat.stage": record.stage,
            **run_tags(key=record.key, digest=record.digest, commit=made.get("commit"), **prefect),
        },
        params=plan.by_id[node_id].node.config.identity(),
        metrics=numbers(record.metrics),
        datasets=[
            (i["node"], i["digest"], f"{store.url}#{i['stage']}/{i['key']}") for i in _inputs(record.inputs)
        ],
        started_ms=started,
        finished_ms=finished,
        history=lambda: _history(store, record, started, finished),
        run_name=recipe,
        run_tags={"nanochat.recipe": recipe, "nanochat.store": store.url},
        ends_run=node_id == plan.nodes[-1].node.id,
    )


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return those metrics that a tracker can show."""
    return {k: float(v) for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _milliseconds(when: Any) -> int:
    seconds = datetime.fromisoformat(when).timestamp() if isinstance(when, str) else float(when)
    return int(seconds * 1000)


def _inputs(inputs: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    for value in inputs.values():
        yield from [value] if isinstance(value, Mapping) else value


def _history(store: Store, record: Record, started_ms: int, finished_ms: int) -> History:
    """Read the curves and samples of a training stage; its lines have no times, so they are spread evenly."""
    lines = {
        name: [json.loads(line) for line in store.read_bytes(file).decode().split("\n") if line]
        for file in (*record.files, *record.attachments)
        if (name := file.path) in ("metrics.jsonl", "throughput.jsonl", "samples.jsonl")
    }
    points = [
        Point(
            {k: v for k, v in numbers(line).items() if "/" in k},
            line["step"],
            started_ms + (finished_ms - started_ms) * number // len(series),
        )
        for name, series in lines.items()
        if name != "samples.jsonl"
        for number, line in enumerate(series, 1)
    ]
    samples = lines.get("samples.jsonl", [])
    return History(points, [(s["step"], f"{s['prompt']} → {s['text']}") for s in samples])
