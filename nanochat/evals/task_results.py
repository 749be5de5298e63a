"""What the items of one task add up to, as `results.json` holds it.

    accuracy   part of the problems answered rightly: of several samples the mean, so that it is pass@1
    baseline   accuracy of guessing
    centered   accuracy above guessing: 0 for guessing, 1 for all right
    problems   how many were asked
    of         how many the task has here

and, where several answers to each problem were drawn:

    samples    how many
    pass_at    k -> pass@k, for each power of two up to `samples`, and `samples`
    any        part of the problems with a right answer among the samples: upstream's accuracy
    majority   numbers only: part of the problems whose most frequent answer is right
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any

from nanochat.evals.item_results import ItemResult


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """The numbers of one task."""

    accuracy: float
    baseline: float
    problems: int
    of: int
    samples: int = 1
    pass_at: Mapping[int, float] = field(default_factory=dict)
    majority: float | None = None

    @property
    def centered(self) -> float:
        """Return the accuracy above guessing."""
        return (self.accuracy - self.baseline) / (1 - self.baseline)

    def to_json(self) -> dict[str, Any]:
        """Return the form that is kept in `results.json`."""
        found: dict[str, Any] = {
            "accuracy": self.accuracy,
            "baseline": self.baseline,
            "centered": self.centered,
            "problems": self.problems,
            "of": self.of,
        }
        if self.samples > 1:
            found["samples"] = self.samples
            found["pass_at"] = {str(k): value for k, value in self.pass_at.items()}
            found |= {name: value for name, value in self.sampled().items() if not name.startswith("pass")}
        return found

    def sampled(self) -> dict[str, float]:
        """Return what only several samples give, each under a name of its own; empty for one sample."""
        if self.samples == 1:
            return {}
        found = {f"pass_at_{k}": value for k, value in self.pass_at.items()}
        found["any"] = self.pass_at[self.samples]
        return found if self.majority is None else found | {"majority": self.majority}


def summed(items: Iterable[ItemResult], *, baseline: float, of: int, votes: bool = False) -> TaskResult:
    """Return the numbers of a task; `votes`: the most frequent of several answers is meaningful."""
    items = list(items)
    samples = len(items[0].right) if items else 1
    return TaskResult(
        accuracy=_mean(sum(item.right) / samples for item in items),
        baseline=baseline,
        problems=len(items),
        of=of,
        samples=samples,
        pass_at={k: _mean(pass_at(k, item.right) for item in items) for k in _sizes(samples)},
        majority=_mean(majority(item) for item in items) if votes and samples > 1 else None,
    )


def pass_at(k: int, right: Sequence[bool]) -> float:
    """Return the chance that k of the samples, drawn without putting back, hold a right one.

    The unbiased estimate of pass@k. Source: arXiv:2107.03374, section 2.1.
    """
    n, wrong = len(right), len(right) - sum(right)
    return 1 - comb(wrong, k) / comb(n, k)


def majority(item: ItemResult) -> bool:
    """Return whether the most frequent answer is right: of a tie the first; an empty one is not counted."""
    votes = Counter(answer for answer in item.predictions if answer)
    if not votes:
        return False
    return item.right[item.predictions.index(votes.most_common(1)[0][0])]


def _sizes(samples: int) -> list[int]:
    """Return the k of pass@k: powers of two, and all."""
    powers = [2**i for i in range(samples.bit_length()) if 2**i < samples]
    return [*powers, samples] if samples > 1 else []


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
