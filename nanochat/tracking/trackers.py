"""Trackers that need nothing but memory: one that keeps everything, one that passes it on to several."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nanochat.runtime import Tracker

_log = logging.getLogger(__name__)


@dataclass
class MemoryTracker:
    """Keeps everything in lists: for tests and for calling a stage by hand."""

    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    params: dict[str, object] = field(default_factory=dict)
    texts: list[tuple[int, str]] = field(default_factory=list)
    total_steps: int | None = None
    closed: bool = False

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        """Keep the numbers of a step."""
        self.metrics.append((step, dict(metrics)))
        self.total_steps = total_steps

    def log_params(self, params: Mapping[str, object]) -> None:
        """Keep settings."""
        self.params.update(params)

    def log_text(self, text: str, *, step: int) -> None:
        """Keep a text."""
        self.texts.append((step, text))

    def close(self) -> None:
        """Note that the stage is done."""
        self.closed = True

    def series(self, key: str) -> list[tuple[int, float]]:
        """Return one metric as (step, value) pairs."""
        return [(step, values[key]) for step, values in self.metrics if key in values]


class MultiTracker:
    """Passes everything to several trackers; one that fails is warned about once and left out."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        """Pass on the numbers of a step."""
        self._each(lambda tracker: tracker.log(metrics, step=step, total_steps=total_steps))

    def log_params(self, params: Mapping[str, object]) -> None:
        """Pass on settings."""
        self._each(lambda tracker: tracker.log_params(params))

    def log_text(self, text: str, *, step: int) -> None:
        """Pass on a text."""
        self._each(lambda tracker: tracker.log_text(text, step=step))

    def close(self) -> None:
        """Close all trackers."""
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                call(tracker)
            except Exception:  # a tracker never costs a stage
                _log.warning("%s failed and is left out from here on", type(tracker).__name__, exc_info=True)
                self._trackers.remove(tracker)
