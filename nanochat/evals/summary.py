"""The numbers of an evaluation, from what the model made of each item: `results.json` and nothing else.

Reading such a file, and laying it out as a table, is the business of `nanochat.evals.results`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.evals.item_results import ItemResult


@dataclass(frozen=True)
class Answered:
    """The items of a benchmark as a model answered them, and the accuracy of guessing."""

    items: Sequence[ItemResult]
    baseline: float

    @property
    def accuracy(self) -> float:
        """Return which part of the items is answered rightly."""
        return sum(result.right[0] for result in self.items) / max(len(self.items), 1)

    @property
    def centered(self) -> float:
        """Return the accuracy above guessing: 0 for guessing, 1 for all correct."""
        return (self.accuracy - self.baseline) / (1 - self.baseline)

    def to_json(self) -> dict[str, float | int]:
        """Return the form that is kept in `results.json`."""
        return {
            "accuracy": self.accuracy,
            "baseline": self.baseline,
            "centered": self.centered,
            "problems": len(self.items),
        }


def results(
    kind: str, tasks: Mapping[str, Answered], core: Mapping[str, Answered], val_bpb: float
) -> dict[str, Any]:
    """Return the content of `results.json` for a model of this kind (`base` or `chat`)."""
    return {
        "model": kind,
        "tasks": {name: answered.to_json() for name, answered in tasks.items()},
        "core": {label: answered.to_json() for label, answered in core.items()},
        "metrics": {
            "core": _mean_centered(core.values()),
            "chatcore": _mean_centered(tasks.values()),
            "val_bpb": val_bpb,
        },
    }


def metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of results as a tracker and a record show them."""
    # CORE and the chat tasks both have an arc_easy.
    named = {f"eval/{name}": task["accuracy"] for name, task in found["tasks"].items()}
    named |= {f"eval/core_{label}": task["accuracy"] for label, task in found["core"].items()}
    return named | {f"eval/{name}": value for name, value in found["metrics"].items() if value is not None}


def _mean_centered(benchmarks: Iterable[Answered]) -> float | None:
    """Return the mean accuracy above guessing, or None where there are no tasks."""
    centered = [answered.centered for answered in benchmarks]
    return sum(centered) / len(centered) if centered else None
