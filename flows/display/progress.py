"""What a person sees while a run goes on: a line per stage with step, loss, bpb, tokens/s and time left.

On a terminal the running stages are live lines with a bar; elsewhere each is printed now and then as plain
text. All of it goes to stderr; what a stage means is never told by colour alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

from flows.display.quantities import duration

_BAR_WIDTH = 20
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


@dataclass
class _Line:
    """State of one running stage."""

    started: float
    step: int = 0
    total_steps: int = 0
    first: tuple[int, float] | None = None  # (step, time) of the first report: a resumed stage starts late
    values: dict[str, float] = field(default_factory=dict)
    printed: float = 0.0


class Progress:
    """Shows running stages; thread-safe, since shards run side by side."""

    def __init__(self, console: Console, *, quiet: bool = False, every_s: float = 5.0) -> None:
        self._console = console
        self._quiet = quiet
        self._every_s = every_s
        self._lock = threading.RLock()
        self._lines: dict[str, _Line] = {}
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> Progress:
        if self._live and not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live and not self._quiet:
            self._live.stop()

    def started(self, node: str) -> StageProgress:
        """Announce a stage and return its tracker."""
        with self._lock:
            self._lines[node] = _Line(started=time.monotonic())
        self._refresh()
        return StageProgress(self, node)

    def finished(self, node: str, outcome: str) -> None:
        """Print a stage's last line."""
        with self._lock:
            line = self._lines.pop(node, None)
        detail = f"  {_describe(line, last=True)}" if line and line.total_steps else ""
        took = f"  {duration(time.monotonic() - line.started)}" if line else ""
        self.say(f"{node:<24} {outcome}{took}{detail}")
        self._refresh()

    def say(self, text: str) -> None:
        """Print one line above the live ones."""
        if not self._quiet:
            with self._lock:
                self._console.print(Text(text), soft_wrap=True)

    def report(self, node: str, metrics: Mapping[str, float], step: int, total_steps: int) -> None:
        """Take a report from a running stage."""
        now = time.monotonic()
        with self._lock:
            line = self._lines.get(node)
            if line is None:
                return
            line.step, line.total_steps = step, total_steps
            line.first = line.first or (step, now)
            line.values.update(metrics)
            due = self._live is None and now - line.printed >= self._every_s
            if due:
                line.printed = now
        if due:
            self.say(f"{node:<24} {_describe(line)}")
        self._refresh()

    def _refresh(self) -> None:
        if self._live and not self._quiet:
            with self._lock:
                rows = [f"{node:<24} {_bar(line)}{_describe(line)}" for node, line in self._lines.items()]
            self._live.update(Text("\n".join(rows)))


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


def _bar(line: _Line) -> str:
    if not line.total_steps:
        return ""
    full = round(_BAR_WIDTH * line.step / line.total_steps)
    return "█" * full + "░" * (_BAR_WIDTH - full) + "  "


def _describe(line: _Line, *, last: bool = False) -> str:
    if not line.total_steps:
        return f"running {duration(time.monotonic() - line.started)}"
    unit = next((name for key, name in _UNITS.items() if key in line.values), None)
    step = f"{line.step:,} of {line.total_steps:,} {unit}" if unit else f"step {line.step}/{line.total_steps}"
    parts = [step]
    parts += [
        f"{name} {form.format(line.values[key])}"
        for key, (name, form) in _SHOWN.items()
        if key in line.values
    ]
    parts += [f"{key[5:]} {value:.3f}" for key, value in line.values.items() if key.startswith("eval/")]
    if not last and (left := _seconds_left(line)) is not None:
        parts.append(f"{duration(left)} left")
    return "  ".join(parts)


def _seconds_left(line: _Line) -> float | None:
    if line.first is None or line.step <= line.first[0]:
        return None
    per_step = (time.monotonic() - line.first[1]) / (line.step - line.first[0])
    return per_step * (line.total_steps - line.step)
