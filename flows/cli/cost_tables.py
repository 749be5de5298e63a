"""What a plan still has to do, in time, money, work, disk and memory: as a table and as plain data.

A stage that ran before on this store counts with the time measured then, the others as
`nanochat.costs.forecast` predicts them. Only formats what it is passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from flows.cli.tables import rows_table
from flows.display.quantities import bytes_text, duration, number_text
from flows.plan import Plan
from flows.plan.time_left import Expected, expected
from nanochat.costs.derived import Derived
from nanochat.costs.forecast import Forecast, StageCost, elapsed_s, forecast
from nanochat.model.memory_estimate import MemoryEstimate

PARTS = ("weights", "gradients", "optimizer", "copies", "activations", "logits")
_MEASURED = (
    "upstream, which holds all logits, measured 75,422 MiB for d20 with 32 rows, 77,018 MiB for d32 with 8"
)


@dataclass(frozen=True)
class PlanCosts:
    """The prediction of a plan, and its price."""

    rows: tuple[Expected, ...]
    forecast: Forecast
    dollars_per_hour: float
    assumed: bool  # no price was set

    @classmethod
    def of(cls, plan: Plan, dollars_per_hour: float | None) -> PlanCosts:
        """Predict a plan's cost; without a price, that of the published machine is assumed."""
        predicted = forecast(plan.recipe)
        price = predicted.machine.dollars_per_hour if dollars_per_hour is None else dollars_per_hour
        return cls(expected(plan, predicted), predicted, price, dollars_per_hour is None)

    @property
    def seconds(self) -> float:
        """Time of the remaining work, as far as it is known."""
        return elapsed_s((self.forecast.of(row.stage), row.seconds or 0.0) for row in self.rows)

    def shown(self) -> Iterator[Table | str]:
        """Yield what to print: nothing if everything is cached or the recipe is too small to predict."""
        if self.forecast.seconds is None or all(row.cached for row in self.rows):
            return
        yield ""
        yield self._table()
        yield from self._notes()

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as plain data."""
        predictable = self.forecast.seconds is not None
        memory = self.forecast.memory
        return {
            "machine": self.forecast.machine.name,
            "utilisation": self.forecast.machine.utilisation,
            "dollars_per_hour": self.dollars_per_hour,
            "dollars_per_hour_assumed": self.assumed,
            "seconds": self.seconds if predictable else None,
            "dollars": self._dollars(self.seconds) if predictable else None,
            "flops": sum(cost.flops or 0.0 for cost in self._left()),
            "disk_bytes": sum(cost.disk_bytes or 0 for cost in self._left()),
            "restart_bytes": self.forecast.restart_bytes,
            "memory_per_gpu": None if memory is None else {**asdict(memory), "total": memory.total},
            "stages": [self._stage_json(row) for row in self.rows],
        }

    def _left(self) -> list[StageCost]:
        return [self.forecast.of(row.stage) for row in self.rows if not row.cached]

    def _dollars(self, seconds: float) -> float:
        return seconds / 3600 * self.dollars_per_hour

    def _stage_json(self, row: Expected) -> dict[str, Any]:
        return {**asdict(self.forecast.of(row.stage)), "seconds": row.seconds, "basis": row.basis}

    def _table(self) -> Table:
        left = self._left()
        total = {
            "stage": "total",
            "steps": "",
            "FLOPs": f"{sum(cost.flops or 0.0 for cost in left):.3g}",
            "time": duration(self.seconds),
            "dollars": f"{self._dollars(self.seconds):.2f}",
            "disk": bytes_text(sum(cost.disk_bytes or 0 for cost in left)),
            "how that is known": "",
        }
        return rows_table([*(self._row(row) for row in self.rows), total])

    def _row(self, row: Expected) -> dict[str, str]:
        cost = self.forecast.of(row.stage)
        if row.cached:
            flops = time = dollars = disk = ""
        else:
            flops = f"{cost.flops:.3g}" if cost.flops else ""
            time = "unknown" if row.seconds is None else duration(row.seconds)
            dollars = "unknown" if row.seconds is None else f"{self._dollars(row.seconds):.2f}"
            dollars = "" if cost.beside else dollars
            disk = bytes_text(cost.disk_bytes) if cost.disk_bytes else ""
        return {
            "stage": row.stage,
            "steps": f"{cost.steps:,}" if cost.steps else "",
            "FLOPs": flops,
            "time": time,
            "dollars": dollars,
            "disk": disk,
            "how that is known": row.basis,
        }

    def _notes(self) -> Iterator[str]:
        machine = self.forecast.machine
        price = "assumed; NANOCHAT_DOLLARS_PER_HOUR sets it" if self.assumed else "NANOCHAT_DOLLARS_PER_HOUR"
        yield (
            f"on {machine.name}: {machine.peak_flops / 1e12:.0f} TFLOPS a GPU, {machine.utilisation:.0%} of"
            f" them used, as published for d20; ${self.dollars_per_hour:.2f} an hour ({price})"
        )
        restart = bytes_text(self.forecast.restart_bytes)
        yield f"disk: plus {restart} for two restart points while a stage trains"
        yield _memory_note(self.forecast.memory)


def derived_table(numbers: Iterable[Derived]) -> Table:
    """One row per number that follows from a recipe's fields."""
    return rows_table(
        [{"derived": d.name, "value": number_text(d.value, ".7g"), "meaning": d.meaning} for d in numbers]
    )


def _memory_note(memory: MemoryEstimate | None) -> str:
    if memory is None:
        return f"memory per GPU: by the estimate, not even one row fits; {_MEASURED}"
    named = ", ".join(f"{part} {bytes_text(getattr(memory, part))}" for part in PARTS)
    return (
        f"memory per GPU: at least {bytes_text(memory.total)} with {memory.rows} rows a pass ({named});"
        f" {_MEASURED}"
    )
