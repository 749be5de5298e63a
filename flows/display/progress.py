"""What a person sees while a run goes on: a line per stage with step, loss, bpb, tokens/s and time left.

On a terminal the running stages are live lines with a bar; elsewhere each is printed now and then as plain
text. All of it goes to stderr, and colour alone never carries meaning.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as LiveTasks
from rich.table import Column
from rich.text import Text

from flows.display.quantities import duration

_SHOWN = {
    "train/loss": ("loss", "{:.4f}"),
    "val/loss": ("val loss", "{:.4f}"),
    "val/bpb": ("bpb", "{:.4f}"),
    "throughput/tokens_per_s": ("tok/s", "{:,.0f}"),
    "throughput/mfu": ("mfu", "{:.1%}"),
    "throughput/mb_per_s": ("MB/s", "{:.1f}"),
    "throughput/documents_per_s": ("documents/s", "{:,.0f}"),
}

_UNITS = {"throughput/mb_per_s": "MB", "throughput/documents_per_s": "documents"}


class Progress:
    """Shows running stages; thread-safe, since shards run side by side."""

    def __init__(self, console: Console, *, quiet: bool = False, every_s: float = 5.0) -> None:
        self._console = console
        self._quiet = quiet
        self._every_s = every_s
        self._lock = threading.RLock()
        self._tasks = LiveTasks(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            # Wrapped where the terminal is narrow: no number is lost.
            TextColumn("{task.fields[numbers]}", markup=False, table_column=Column(overflow="fold")),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            refresh_per_second=4,
            speed_estimate_period=math.inf,  # a step of a big model may take longer than any period
            transient=True,
            get_time=time.monotonic,
            disable=quiet or not console.is_interactive,
        )

    def __enter__(self) -> Progress:
        self._tasks.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._tasks.stop()

    def started(self, node: str) -> StageProgress:
        """Announce a stage and return its tracker."""
        with self._lock:
            self._end(node)  # a stage that lost its lease starts again
            self._tasks.add_task(node, total=None, values={}, numbers="", left="", printed=-math.inf)
        return StageProgress(self, node)

    def finished(self, node: str, outcome: str) -> None:
        """Print a stage's last line."""
        with self._lock:
            task = self._end(node)
        took = f"  {duration(task.elapsed or 0.0)}" if task else ""
        numbers = f"  {task.fields['numbers']}" if task and task.fields["numbers"] else ""
        self.say(f"{node:<24} {outcome}{took}{numbers}")

    def say(self, text: str) -> None:
        """Print one line above the live ones."""
        if not self._quiet:
            with self._lock:
                self._console.print(Text(text), soft_wrap=True)

    def report(self, node: str, metrics: Mapping[str, float], step: int, total_steps: int) -> None:
        """Take a report from a running stage."""
        with self._lock:
            task = self._find(node)
            if task is None:
                return
            if step < task.completed:  # an evaluation counts each of its tasks from the start
                began = task.start_time
                self._tasks.reset(task.id)
                task.start_time = began
            values = task.fields["values"] | metrics
            numbers = _numbers(step, total_steps, values)
            self._tasks.update(
                task.id, completed=step, total=total_steps, values=values, numbers=numbers, left="left"
            )
            now = time.monotonic()
            due = self._tasks.disable and now - task.fields["printed"] >= self._every_s
            if due:
                task.fields["printed"] = now
        if due:
            self.say(f"{node:<24} {numbers}{_time_left(task)}")

    def _find(self, node: str) -> Task | None:
        return next((task for task in self._tasks.tasks if task.description == node), None)

    def _end(self, node: str) -> Task | None:
        task = self._find(node)
        if task:
            self._tasks.remove_task(task.id)
        return task


@dataclass(frozen=True)
class StageProgress:
    """The tracker that draws a stage's line."""

    progress: Progress
    node: str

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        """Show numbers at a step."""
        self.progress.report(self.node, metrics, step, total_steps)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Settings are shown by `nanochat show`."""

    def log_text(self, text: str, *, step: int) -> None:
        """Show a sample."""
        self.progress.say(f"{self.node:<24} step {step}: {' '.join(text.split())[:200]}")

    def close(self) -> None:
        """Nothing is held open."""


def _numbers(step: int, total_steps: int, values: Mapping[str, float]) -> str:
    """Return how far a stage is and what it measured."""
    unit = next((name for key, name in _UNITS.items() if key in values), None)
    parts = [f"{step:,} of {total_steps:,} {unit}" if unit else f"step {step}/{total_steps}"]
    parts += [f"{name} {form.format(values[key])}" for key, (name, form) in _SHOWN.items() if key in values]
    parts += [f"{key[5:]} {value:.3f}" for key, value in values.items() if key.startswith("eval/")]
    return "  ".join(parts)


def _time_left(task: Task) -> str:
    if not task.speed or task.remaining is None:
        return ""
    return f"  {duration(task.remaining / task.speed)} left"
