"""How plans, records and results look as text: rich tables for people, plain data for `--json`.

Only shapes what it is given; reads no store and runs nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.plan import Plan, Planned
from flows.progress import duration
from flows.stage import Record

_PARTS = {"render": "mixtures"}  # what a stage has one node of, if not of a shard
WORDS = {"hit": "cached", "run": "run", "wait": "wait"}


def plan_table(plan: Plan) -> Table:
    """One row a stage; the shards of a stage that fans out are counted together."""
    table = _table("stage", "action", "why", "last took")
    for name, group in _by_stage(plan.nodes).items():
        counts = Counter(WORDS[p.action] for p in group)
        action = (
            ", ".join(f"{n} {word}" for word, n in counts.items())
            if len(group) > 1
            else WORDS[group[0].action]
        )
        first = next((p for p in group if p.action != "hit"), group[0])
        seconds = sum(p.seconds or 0.0 for p in group if p.action != "hit")
        known = any(p.seconds is not None for p in group if p.action != "hit")
        label = name if len(group) == 1 else f"{name} ({len(group)} {_PARTS.get(name, 'shards')})"
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
    }


def plan_summary(plan: Plan, dollars_per_hour: float | None) -> str:
    """Say in one line how much is cached, and how long the rest took when it last ran."""
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


def run_table(records: Mapping[str, Record], executed: Iterable[str]) -> Table:
    """One row a stage: whether it ran, its digest, what it took."""
    made = set(executed)
    table = _table("stage", "status", "digest", "time", "result")
    groups: dict[str, list[str]] = {}
    for node in records:
        groups.setdefault(node.partition("/")[0], []).append(node)
    for name, nodes in groups.items():
        ran = [n for n in nodes if n in made]
        status = (
            "cached" if not ran else "done" if len(ran) == len(nodes) else f"{len(ran)} of {len(nodes)} done"
        )
        seconds = sum(float(records[n].provenance.get("seconds") or 0) for n in nodes)
        label = name if len(nodes) == 1 else f"{name} ({len(nodes)} {_PARTS.get(name, 'shards')})"
        digest = records[nodes[0]].digest[:12] if len(nodes) == 1 else ""
        result = _headline(records[nodes[0]].metrics) if len(nodes) == 1 else ""
        table.add_row(label, status, digest, duration(seconds), result)
    return table


def results_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """The benchmark table: a row a task, a column a model."""
    table = _table("benchmark", "chance", *results)
    names = dict.fromkeys(name for result in results.values() for name in result["tasks"])
    for name in names:
        chance = next(r["tasks"][name]["baseline"] for r in results.values() if name in r["tasks"])
        cells = [_percent(r["tasks"].get(name, {}).get("accuracy")) for r in results.values()]
        table.add_row(name, _percent(chance), *cells)
    for metric in ("core", "chatcore", "val_bpb"):
        values = [r["metrics"].get(metric) for r in results.values()]
        if any(v is not None for v in values):
            table.add_row(metric, "", *("" if v is None else f"{v:.4f}" for v in values))
    return table


def records_table(records: Sequence[Record]) -> Table:
    """One row a record, newest first."""
    table = _table("record", "node", "made", "time", "size", "digest")
    for r in records:
        size = sum(f.size for f in (*r.files, *r.attachments))
        took = duration(float(r.provenance.get("seconds") or 0))
        made = str(r.provenance.get("finished_at", ""))
        table.add_row(f"{r.stage}/{r.key[:12]}", r.node, made, took, bytes_text(size), r.digest[:12])
    return table


def record_text(record: Record, contents: Mapping[str, Any] | None = None) -> str:
    """One record in full: what was hashed, metrics, provenance, files, and what is in them where known."""
    parts = {"hashed": record.payload, "metrics": record.metrics, "provenance": record.provenance}
    lines = [f"{record.stage}/{record.key}", f"node    {record.node}", f"digest  {record.digest}"]
    for title, part in parts.items():
        lines += ["", title, json.dumps(part, indent=2, default=str)]
    lines += ["", "files"]
    for file in (*record.files, *record.attachments):
        lines.append(f"  {file.path:<28} {bytes_text(file.size):>10}  {file.sha256[:12]}")
    if contents:
        lines += ["", "contents", *_contents_lines(contents)]
    return "\n".join(lines)


def _contents_lines(contents: Mapping[str, Any]) -> list[str]:
    counts = {k: v for k, v in contents.items() if k not in ("samples", "conversations")}
    lines = [f"  {k.replace('_', ' '):<24} {_number(v)}" for k, v in counts.items()]
    for sample in contents.get("samples", ()):
        text = json.dumps(sample["text"], ensure_ascii=False)
        more = "" if sample["whole"] else " …"
        lines += ["", f"  document {sample['document']}, {sample['tokens']:,} tokens", f"    {text}{more}"]
    return lines


def conversation_text(sample: Mapping[str, Any]) -> Text:
    """A rendered conversation; what the assistant is trained on is green and has a plus before each line."""
    text = Text(f"\nconversation {sample['conversation']}, {sample['tokens']:,} tokens (+ is trained on)")
    for piece in sample["pieces"]:
        sign, style = ("+", "green") if piece["target"] else (" ", "dim")
        for line in piece["text"].split("\n"):
            text.append(f"\n{sign} {line}", style)
    return text


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a mapping; all have the same keys."""
    table = _table(*rows[0])
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


def fields_table(fields: Iterable[tuple[str, Any, str]]) -> Table:
    """One row a recipe field: its dotted name, value and help text."""
    table = _table("field", "value", "meaning")
    for name, value, text in fields:
        table.add_row(name, _value(value), text)
    return table


def bytes_text(size: float) -> str:
    """Return a size as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _by_stage(nodes: Iterable[Planned]) -> dict[str, list[Planned]]:
    groups: dict[str, list[Planned]] = {}
    for planned in nodes:
        groups.setdefault(planned.node.stage.name, []).append(planned)
    return groups


def _headline(metrics: Mapping[str, Any]) -> str:
    shown = ("val/bpb", "val/loss", "train/loss", "core", "chatcore", "bytes_per_token", "tokens")
    parts = [f"{k} {v:.4g}" for k in shown if isinstance(v := metrics.get(k), int | float)]
    return ", ".join(parts[:2])


def _number(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else _value(value)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_value(v) for v in value) or "(none)"
    if hasattr(value, "model_dump"):
        return " ".join(f"{k}={v}" for k, v in value.model_dump(exclude_defaults=True).items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
