"""Where on a page the record of a number is: an anchor for each record, and the records as they are listed.

Each record is there in full, but of a stage with hundreds of them only the first; the others are rows with
the name of their file, their key and their digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from flows.display.quantities import bytes_text
from flows.stages import STAGES
from flows.store import Record
from flows.store.records import inputs_of, record_name

_IN_FULL = 8  # records of one stage


@dataclass(frozen=True)
class ListedRecord:
    """One record as the page lists it."""

    anchor: str
    node: str
    name: str  # in the store
    digest: str
    size: str
    made: str
    commit: str
    made_from: tuple[tuple[str, str], ...]  # text and link of each input
    text: str  # the whole record, empty where only its row is shown


def link(record: Record) -> str:
    """Return the address of a record on the page."""
    return f"#{_anchor(record)}"


def link_of_stage(stage: str) -> str:
    """Return the address of the records of a stage on the page."""
    return f"#stage-{stage}"


def listed_by_stage(records: Mapping[str, Record]) -> dict[str, list[ListedRecord]]:
    """Return the records as a page lists them, by stage."""
    by_ref = {(r.stage, r.key): r for r in records.values()}
    found: dict[str, list[ListedRecord]] = {stage: [] for stage in STAGES}
    for record in records.values():
        rows = found.setdefault(record.stage, [])
        made_from = []
        for name, refs in inputs_of(record).items():
            first = by_ref.get(refs[0]) if refs else None
            text = name if len(refs) == 1 else f"{name} ({len(refs):,})"
            href = "" if not first else link(first) if len(refs) == 1 else link_of_stage(first.stage)
            made_from.append((text, href))
        rows.append(_listed(record, tuple(made_from), in_full=len(rows) < _IN_FULL))
    return {stage: rows for stage, rows in found.items() if rows}


def _listed(record: Record, made_from: tuple[tuple[str, str], ...], *, in_full: bool) -> ListedRecord:
    made = record.provenance
    commit = str(made.get("commit") or "unknown")[:12] + (" + local changes" if made.get("dirty") else "")
    plain = json.dumps(record.to_json(), indent=1, default=str, ensure_ascii=False) if in_full else ""
    size = sum(file.size for file in (*record.files, *record.attachments))
    return ListedRecord(
        anchor=_anchor(record),
        node=record.node,
        name=record_name(record.stage, record.key),
        digest=record.digest,
        size=bytes_text(size),
        made=moment(made.get("finished_at")),
        commit=commit,
        made_from=made_from,
        text=plain,
    )


def moment(when: object) -> str:
    """Return a moment of a record as people read it: `2026-11-28 04:52 UTC`."""
    if not isinstance(when, str):
        return "unknown"
    text = when.replace("T", " ")
    return f"{text[:16]} UTC" if text.endswith(("+00:00", "Z")) else text


def _anchor(record: Record) -> str:
    return f"record-{record.stage}-{record.key[:12]}"
