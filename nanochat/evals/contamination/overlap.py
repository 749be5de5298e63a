"""What the search for evaluation items in training text found: plain data, its file, and its sum over shards.

Finding is the work of `nanochat.evals.contamination.search`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanochat.errors import DataError
from nanochat.evals.results import core_label, percent

FILE_NAME = "contamination.json"


@dataclass(frozen=True, kw_only=True)
class TaskOverlap:
    """One task: how many items it has, and which of them overlap with training text."""

    items: int
    too_short: int  # items of fewer words than a gram has: nothing can be said about them
    overlapping: tuple[int, ...]  # numbers of items

    @property
    def judged(self) -> int:
        """Return the number of items that are long enough."""
        return self.items - self.too_short

    @property
    def part(self) -> float | None:
        """Return which fraction of the judged items overlaps; None where there are none."""
        return len(self.overlapping) / self.judged if self.judged else None


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """All tasks compared with one text shard or several."""

    ngram_words: int
    shards: int
    documents: int
    overlapping_documents: int
    tasks: Mapping[str, TaskOverlap]
    core: Mapping[str, TaskOverlap]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write it as JSON; equal findings give equal bytes."""
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Overlap:
        """Read what `write` wrote; raise DataError for anything else."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**data, "tasks": _tasks(data["tasks"]), "core": _tasks(data["core"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} holds no overlap of training text with tasks: {type(error).__name__}: {error}",
                hint="make it again: --force contamination",
            ) from error


def _tasks(found: Mapping[str, Any]) -> dict[str, TaskOverlap]:
    return {
        name: TaskOverlap(
            items=task["items"], too_short=task["too_short"], overlapping=tuple(task["overlapping"])
        )
        for name, task in found.items()
    }


def merge(overlaps: Sequence[Overlap]) -> Overlap:
    """Add up shards: documents are counted together, an item overlaps if it does with any shard."""
    first = overlaps[0]
    return Overlap(
        ngram_words=first.ngram_words,
        shards=sum(o.shards for o in overlaps),
        documents=sum(o.documents for o in overlaps),
        overlapping_documents=sum(o.overlapping_documents for o in overlaps),
        tasks={name: _union([o.tasks[name] for o in overlaps]) for name in first.tasks},
        core={name: _union([o.core[name] for o in overlaps]) for name in first.core},
    )


def _union(found: Sequence[TaskOverlap]) -> TaskOverlap:
    overlapping = sorted({item for task in found for item in task.overlapping})
    return TaskOverlap(items=found[0].items, too_short=found[0].too_short, overlapping=tuple(overlapping))


def overlap_lines(overlap: Overlap) -> dict[str, int | str]:
    """Return counts by name, and a line per task, for people."""
    lines: dict[str, int | str] = {
        "documents": overlap.documents,
        "overlapping_documents": overlap.overlapping_documents,
    }
    named = [*overlap.tasks.items(), *((core_label(name), task) for name, task in overlap.core.items())]
    for name, task in named:
        part = "" if task.part is None else f" ({percent(task.part)})"
        found = f"{len(task.overlapping):,} of {task.judged:,} judged items overlap{part}"
        lines[name] = f"{found}, {task.too_short:,} too short"
    return lines
