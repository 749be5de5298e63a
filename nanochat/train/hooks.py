"""What happens around training steps: measurements, sampled texts, records, restart points, stopping.

A hook is called after a step with what the step measured, on every rank at the same step; what only one rank
has to do (texts, files, tracker) is done by rank 0 while the others wait for it in the next step. Which hooks
a run has is put together in `nanochat.train.training_run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from nanochat.errors import Interrupted
from nanochat.runtime import Runtime
from nanochat.train.loop import StepResult
from nanochat.train.state import TrainState

Said = TypeVar("Said")
SAMPLE_TOKENS = 32
"""The longest text that is shown."""


@dataclass(frozen=True, kw_only=True)
class Every(Generic[Said]):
    """Calls something at a fixed interval of steps, and after the last one."""

    every: int
    steps: int
    call: Callable[[int], Said]

    def __call__(self, result: StepResult) -> Said | None:
        """Return what the call returns if this step is due."""
        due = result.step % self.every == 0 or result.step == self.steps
        return self.call(result.step) if due else None


@dataclass(frozen=True)
class Sampler:
    """Shows what the model answers to fixed prompts."""

    state: TrainState
    runtime: Runtime
    prompts: Sequence[str]
    answer: Callable[[str], str]

    def __call__(self, step: int) -> None:
        """Record one continuation of each prompt."""
        if not self.state.world.main:
            return
        for prompt in self.prompts:
            text = self.answer(prompt)
            self.state.journal.add("samples", {"step": step, "prompt": prompt, "text": text})
            self.runtime.tracker.log_text(f"{prompt} → {text}", step=step)


@dataclass
class Keeper:
    """Keeps restart points at intervals of time, and a last one when the run is asked to stop."""

    state: TrainState
    runtime: Runtime
    run: Mapping[str, Any]
    steps: int
    _saved: float = field(default_factory=time.monotonic)

    def __call__(self, result: StepResult) -> None:
        """Keep a restart point if one is due; raise `Interrupted` if the run is to stop."""
        stop, due = self._agreed()
        if stop and result.step < self.steps:
            self._save()
            raise Interrupted(f"stopped after step {result.step} of {self.steps}; {self._kept()}")
        if due:
            self._save()
            self._saved = time.monotonic()

    def _agreed(self) -> tuple[bool, bool]:
        """Return whether any rank was asked to stop, and whether a restart point is due by rank 0's clock."""
        late = time.monotonic() - self._saved >= self.runtime.restart_point_every_s
        wishes = self.state.world.gather(self.runtime.stop.is_set(), late)
        return any(stop for stop, _ in wishes), bool(wishes[0][1])

    def _kept(self) -> str:
        """Return what rank 0 has kept, once it has; the same on all ranks."""
        latest = self.runtime.restart_points.latest() if self.state.world.main else None
        step = self.state.world.gather(latest[0] if latest else -1)[0][0]
        return f"step {int(step)} is kept" if step >= 0 else "nothing is kept"

    def _save(self) -> None:
        self.state.save(self.runtime.restart_points, self.run, self.runtime.scratch)
