"""How records, their lineage and samples of their contents look as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flows.cli.tables import plain_table
from flows.display.quantities import bytes_text, duration, number_text
from flows.store import Record, Store
from flows.store.lineage import lineage
from flows.store.records import inputs_of

FEW = 3  # of an input that is many artifacts


def lineage_tree(store: Store, record: Record, *, at_most: int | None = None) -> Tree:
    """Draw a record's ancestors; one that was drawn already is only named.

    With `at_most`, an input that is many artifacts is drawn by its first ones and how many more there are.
    """
    by_ref = {(r.stage, r.key): r for r in lineage(store, record, at_most=at_most)}
    drawn: set[tuple[str, str]] = set()

    def grow(parent: Record, branch: Tree) -> None:
        shown = inputs_of(parent).values()
        for ref in dict.fromkeys(ref for refs in shown for ref in refs[:at_most]):
            made = by_ref.get(ref)
            if made is None:
                branch.add(f"{ref[0]}/{ref[1][:12]} (record gone)")
            else:
                again = ref in drawn and bool(made.inputs)
                twig = branch.add(
                    f"{made.node}  {made.key[:12]}  digest {made.digest[:12]}{' (above)' if again else ''}"
                )
                if not again:
                    drawn.add(ref)
                    grow(made, twig)
        for refs in shown:
            if at_most is not None and len(refs) > at_most:
                branch.add(f"… and {len(refs) - at_most:,} more {refs[0][0]}")

    root = Tree(f"{record.node}  {record.key[:12]}  digest {record.digest[:12]}", highlight=False)
    grow(record, root)
    return root


def records_table(records: Sequence[Record]) -> Table:
    """One row per record, newest first."""
    table = plain_table("record", "node", "made", "time", "size", "digest")
    for r in records:
        size = sum(f.size for f in (*r.files, *r.attachments))
        took = duration(float(r.provenance.get("seconds") or 0))
        made = str(r.provenance.get("finished_at", ""))
        table.add_row(f"{r.stage}/{r.key[:12]}", r.node, made, took, bytes_text(size), r.digest[:12])
    return table


def record_text(record: Record, contents: Mapping[str, Any] | None = None) -> str:
    """One record in full: what was hashed, metrics, provenance, files, and what is in them if known."""
    made = dict(record.provenance)
    if packages := made.pop("packages", None):
        made["packages"] = f"{len(packages)} (--json names them)"
    parts = {"hashed": record.payload, "metrics": record.metrics, "provenance": made}
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
    lines = [
        f"  {k.replace('_', ' '):<24} {v if isinstance(v, str) else number_text(v, ',.3f')}"
        for k, v in counts.items()
    ]
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
