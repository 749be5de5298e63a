"""How plans look as text, and as plain data for `--json`. Only formats what it is passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from flows.cli.tables import plain_table, stage_label
from flows.display.quantities import duration
from flows.plan import Plan, Planned
from nanochat.data.sources.corpus import Corpus

_SHOWN = 3  # names of files in a line
WORDS = {"hit": "cached", "run": "run", "wait": "wait"}


def plan_table(plan: Plan) -> Table:
    """One row per stage; the shards of a stage that fans out are counted together."""
    table = plain_table("stage", "action", "why", "last took")
    for group in _by_stage(plan.nodes).values():
        counts = Counter(WORDS[p.action] for p in group)
        action = (
            ", ".join(f"{n} {word}" for word, n in counts.items())
            if len(group) > 1
            else WORDS[group[0].action]
        )
        first = next((p for p in group if p.action != "hit"), group[0])
        seconds = sum(p.seconds or 0.0 for p in group if p.action != "hit")
        known = any(p.seconds is not None for p in group if p.action != "hit")
        label = stage_label(first.node.stage, len(group))
        table.add_row(label, action, first.reason, duration(seconds) if known else "")
    return table


def plan_json(plan: Plan, dollars_per_hour: float | None) -> dict[str, Any]:
    """Return a plan as plain data."""
    return {
        "recipe": plan.recipe.name,
        "all_cached": plan.all_cached,
        "predicted_seconds": plan.predicted_s,
        "predicted_dollars": None if dollars_per_hour is None else plan.predicted_s / 3600 * dollars_per_hour,
        "nodes": [planned_json(p) for p in plan.nodes],
        "warnings": list(plan.warnings),
        "text": _text_json(plan.corpus) if plan.corpus else None,
    }


def _text_json(corpus: Corpus) -> dict[str, Any]:
    return {
        "train": [shard.name for shard in corpus.train],
        "validation": corpus.validation.name,
        "left_out": [
            {"why": each.why, "files": list(each.paths), "convert": each.convert} for each in corpus.left_out
        ],
    }


def text_lines(plan: Plan) -> list[str]:
    """Return which files of a folder are used, and one line for each reason why others are not."""
    corpus = plan.corpus
    if corpus is None or not corpus.listed:
        return []
    train = _some([shard.name for shard in corpus.train])
    lines = [
        f"text from {plan.recipe.corpus.source}: {train} to train on; {corpus.validation.name} to validate"
    ]
    for each in corpus.left_out:
        lines.append(f"left out: {len(each.paths)} {each.why}: {_some(each.paths)}")
        if each.convert:
            lines.append(f"  to use {'it' if len(each.paths) == 1 else 'them'}: {each.convert}")
    return lines


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def plan_summary(plan: Plan, dollars_per_hour: float | None) -> str:
    """Return one line: how much is cached, and how long the rest took when it last ran."""
    todo = sum(p.action != "hit" for p in plan.nodes)
    line = f"{len(plan.nodes) - todo} of {len(plan.nodes)} nodes cached; {todo} to run"
    if not plan.predicted_s:
        return line
    price = "" if dollars_per_hour is None else f", ${plan.predicted_s / 3600 * dollars_per_hour:.2f}"
    return f"{line}, {duration(plan.predicted_s)} when last measured{price}"


def planned_json(planned: Planned) -> dict[str, Any]:
    """Return one planned node as plain data."""
    return {
        "node": planned.node.id,
        "stage": planned.node.stage.name,
        "action": WORDS[planned.action],
        "reason": planned.reason,
        "key": planned.key,
        "digest": planned.record.digest if planned.record else None,
        "code_drift": planned.drift,
        "last_seconds": planned.seconds,
        "changes": [{"field": c.field, "before": c.before, "after": c.after} for c in planned.changes],
    }


def _by_stage(nodes: Iterable[Planned]) -> dict[str, list[Planned]]:
    groups: dict[str, list[Planned]] = {}
    for planned in nodes:
        groups.setdefault(planned.node.stage.name, []).append(planned)
    return groups
