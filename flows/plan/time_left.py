"""How long the rest of a plan will take: as measured on this store, else as predicted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from flows.plan.plan import Plan
from flows.plan.planned import Planned
from nanochat.costs.forecast import Forecast, StageCost


@dataclass(frozen=True)
class Expected:
    """How long the rest of one stage will take; None: not known."""

    stage: str
    seconds: float | None
    basis: str
    cached: bool = False


def expected(plan: Plan, forecast: Forecast) -> tuple[Expected, ...]:
    """Return the time left per stage: as measured on this store where it ran like this, else as predicted."""
    groups: dict[str, list[Planned]] = defaultdict(list)
    for planned in plan.nodes:
        groups[planned.node.stage.name].append(planned)
    return tuple(_expected(name, group, forecast.of(name)) for name, group in groups.items())


def _expected(name: str, group: Sequence[Planned], cost: StageCost) -> Expected:
    todo = [p for p in group if p.action != "hit"]
    if not todo:
        return Expected(name, 0.0, "cached", cached=True)
    measured = [p.seconds for p in todo if p.seconds is not None and not _asks_otherwise(p)]
    new = len(todo) - len(measured)
    if not new:
        return Expected(name, sum(measured), "measured on this store")
    if cost.seconds is None:
        return Expected(name, None, cost.basis)
    return Expected(name, sum(measured) + cost.seconds * new / len(group), cost.basis)


def _asks_otherwise(planned: Planned) -> bool:
    """Return whether a field of the stage has changed since last time, so that its time means little."""
    return any(change.field.startswith(f"{planned.node.stage.name}.") for change in planned.changes)
