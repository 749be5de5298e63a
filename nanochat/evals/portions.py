"""How the work of an evaluation is cut into portions: by the data alone.

A portion is the unit that ranks share and restart points keep. What is made of its items may depend on which
items are in it (they share batches), so nothing about the machine has a say in the cut: the same items give
the same portions and the same bytes on any number of ranks, and after any interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Any  # what is made of one item, as a value of JSON

# Characters to read. Few enough to lose when a run is killed, enough to fill some batches.
_LEAST_WORK, _MOST_WORK = 16_384, 262_144
_FEWEST = 16  # portions of a part that is long enough
GENERATED = 64  # characters that take as long to read as one token takes to write, in a batch


@dataclass(frozen=True, kw_only=True)
class Portion:
    """Items of one part that are made together, the longest first."""

    part: str
    items: tuple[int, ...]
    work: float


@dataclass(frozen=True, kw_only=True)
class EvaluationPart:
    """A part of an evaluation, such as a task: its items, and what makes rows of some of them."""

    name: str
    work: Mapping[int, float]  # of each item, by its number
    make: Callable[[Sequence[int]], Iterator[Mapping[int, Row]]]  # batch by batch
    baseline: float | None = None  # accuracy of guessing, where a row is an `ItemResult`
    least_items: int = 1  # of a portion, but the last: as many as are worth a batch

    def portions(self) -> list[Portion]:
        """Cut the items into portions of about the same work."""
        order = sorted(self.work, key=lambda item: (-self.work[item], item))
        most = min(max(sum(self.work.values()) / _FEWEST, _LEAST_WORK), _MOST_WORK)
        cut: list[list[int]] = []
        filled = 0.0
        for item in order:
            filled += self.work[item]
            if not cut or (filled > most and len(cut[-1]) >= self.least_items):
                cut.append([])
                filled = self.work[item]
            cut[-1].append(item)
        return [
            Portion(part=self.name, items=tuple(items), work=sum(self.work[item] for item in items))
            for items in cut
        ]


def longest_first(parts: Sequence[EvaluationPart]) -> list[Portion]:
    """Return the portions of all parts: parts with long ones first, so that ranks end at about one time."""
    cut = [part.portions() for part in parts]
    cut.sort(key=lambda portions: -max((portion.work for portion in portions), default=0.0))
    return [portion for portions in cut for portion in sorted(portions, key=lambda p: -p.work)]
