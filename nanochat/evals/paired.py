"""Two models on the same items: how much better one is, how sure that is, and on which items they differ.

Works on items as `nanochat.evals.item_results` has them; who asked them, and in which batches, is of no
interest here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nanochat.errors import DataError
from nanochat.evals.intervals import Difference, difference
from nanochat.evals.item_results import ItemResult

Items = Mapping[str, Sequence[ItemResult]]  # by task; tasks of CORE begin with core_


@dataclass(frozen=True)
class TaskComparison:
    """What the first model has more than the second on one task."""

    items: int
    difference: Difference
    gained: tuple[int, ...]  # items that the first model answers rightly more often
    lost: tuple[int, ...]


def compared(first: Items, second: Items) -> dict[str, TaskComparison]:
    """Compare two models task by task; raise DataError where they were not asked the same items."""
    return {name: _compared(name, items, second[name]) for name, items in first.items() if name in second}


def _compared(name: str, first: Sequence[ItemResult], second: Sequence[ItemResult]) -> TaskComparison:
    ours, theirs = ({result.item: result for result in items} for items in (first, second))
    asked = [{i: (r.gold, len(r.right)) for i, r in items.items()} for items in (ours, theirs)]
    if asked[0] != asked[1]:
        raise DataError(
            f"{name}: the two models were not asked the same items the same number of times",
            hint="score both again with the same settings",
        )
    numbers = sorted(ours)
    gains = {i: sum(ours[i].right) - sum(theirs[i].right) for i in numbers}
    return TaskComparison(
        len(numbers),
        difference(
            [sum(theirs[i].right) for i in numbers],
            [sum(ours[i].right) for i in numbers],
            of=len(first[0].right) if first else 1,
        ),
        tuple(i for i in numbers if gains[i] > 0),
        tuple(i for i in numbers if gains[i] < 0),
    )
