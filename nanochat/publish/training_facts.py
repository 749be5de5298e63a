"""What the records know of a model's training: text, stages, machines, time and money."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from nanochat.evals.results import ABSENT
from nanochat.publish.card_inputs import Records, quoted
from nanochat.publish.front_matter import dataset_of


def training_stages(records: Records) -> list[dict[str, str]]:
    """Return a row for each training, in the order in which one took up the model of the one before."""
    rows = []
    for record in _trainings(records):
        metrics = record["metrics"]
        measure = next((name for name in ("val/bpb", "val/loss") if metrics.get(name) is not None), None)
        rows.append(
            {
                "title": record["title"],
                "data": _conversations(record, records),
                "steps": number(metrics.get("steps")),
                "tokens": number(metrics.get("tokens")),
                "flops": number(metrics.get("flops"), ".2e"),
                "loss": number(metrics.get("train/loss"), ".4f"),
                "validation": ABSENT if measure is None else f"{metrics[measure]:.4f} ({measure})",
                "time": duration(record["provenance"].get("seconds")),
            }
        )
    return rows


def total_flops(records: Records) -> str:
    """Return the operations of all trainings together."""
    known = [r["metrics"]["flops"] for r in _trainings(records) if r["metrics"].get("flops") is not None]
    return number(sum(known) if known else None, ".2e")


def _trainings(records: Records) -> list[Mapping[str, Any]]:
    titled = [record for record in records.values() if record.get("title")]
    return sorted(titled, key=lambda record: _trainings_before(record, records))


def _trainings_before(record: Mapping[str, Any], records: Records) -> int:
    model = record["inputs"].get("model")
    before = records.get(model["node"]) if model else None
    return 0 if before is None else 1 + _trainings_before(before, records)


def _conversations(record: Mapping[str, Any], records: Records) -> str:
    """Return what a training read by task, with counts; nothing for the first, which reads the corpus."""
    if not record["inputs"].get("model"):
        return ""
    read = record["inputs"].get("chat", {}).get("node")
    rendered = records.get(read, {}).get("metrics", {}).get("rows", {})
    used = [(name, rows["used"]) for name, rows in rendered.items() if rows.get("used")]
    texts = [f"{number(count)} of {quoted(dataset_of(name, records)['name'])}" for name, count in used]
    total = number(sum(count for _, count in used))
    return f"{total} conversations and problems: {', '.join(texts)}" if texts else "conversations"


def corpus(records: Records) -> dict[str, str] | None:
    """Return the counts of all text that was made into tokens."""
    shards = [r["metrics"] for r in records.values() if r["stage"] == "tokenize"]
    if not shards:
        return None
    total = {name: sum(s.get(name, 0) for s in shards) for name in ("documents", "bytes", "tokens")}
    words = total["tokens"] - total["documents"]  # each document begins with a token of no bytes
    known = words > 0 and all("characters" in shard for shard in shards)
    return {
        "shards": number(len(shards)),
        **{name: number(value) for name, value in total.items()},
        "bytes_per_token": f"{total['bytes'] / words:.3f}" if words > 0 else ABSENT,
        "characters_per_token": f"{sum(s['characters'] for s in shards) / words:.2f}" if known else ABSENT,
    }


def dropped(records: Records) -> int | None:
    """Return how many documents were left out of the training tokens; None where none were to be."""
    counts = [r["metrics"].get("dropped_documents") for r in records.values() if r["stage"] == "tokenize"]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def hardware(records: Records) -> list[str]:
    """Return the machines that made anything, each with the stages it made."""
    made: dict[str, dict[str, None]] = {}
    for record in records.values():
        machine = record["provenance"].get("hardware")
        if machine:
            made.setdefault(_machine(machine), {})[record["stage"]] = None
    return [quoted(f"{machine}: {', '.join(stages)}") for machine, stages in made.items()]


def _machine(hardware: Mapping[str, Any]) -> str:
    size = hardware.get("memory_bytes")
    parts = (
        hardware.get("cpu"),
        f"{hardware['cores']} cores" if hardware.get("cores") else None,
        f"{size / 2**30:.0f} GiB" if isinstance(size, int | float) else None,
    )
    host = ", ".join(str(part) for part in parts if part)
    return f"{hardware.get('gpus')} x {hardware['gpu']} ({host})" if hardware.get("gpu") else host


def seconds(records: Records) -> list[tuple[str, str, str]]:
    """Return stage, number of executions and their summed time; the last row is the total."""
    by_stage: dict[str, list[float]] = {}
    for record in records.values():
        by_stage.setdefault(record["stage"], []).append(record["provenance"].get("seconds") or 0.0)
    rows = [(stage, str(len(times)), duration(sum(times))) for stage, times in by_stage.items()]
    total = [each for times in by_stage.values() for each in times]
    return [*rows, ("all", str(len(total)), duration(sum(total)))]


def cost(records: Records) -> str:
    """Return what all executions cost, and of how many that is not known."""
    dollars = [record["provenance"].get("dollars") for record in records.values()]
    known = [value for value in dollars if value is not None]
    if not known:
        return "Unpriced: no price per hour was set for the machines that made this model."
    text = f"${sum(known):,.2f}"
    missing = len(dollars) - len(known)
    return f"{text}; {missing} of {len(dollars)} executions are unpriced." if missing else f"{text}."


def number(value: float | None, form: str = ",.0f") -> str:
    """Return a number as text."""
    return ABSENT if value is None else format(value, form)


def duration(seconds: float | None) -> str:
    """Return a time as text."""
    if seconds is None:
        return ABSENT
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
