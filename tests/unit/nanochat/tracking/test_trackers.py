from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from nanochat.runtime import NullTracker
from nanochat.tracking import MemoryTracker, MultiTracker


class _Broken(NullTracker):
    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        raise OSError("disk full")


def test_memory_tracker_gives_back_a_series() -> None:
    tracker = MemoryTracker()
    tracker.log({"train/loss": 2.0}, step=1, total_steps=3)
    tracker.log({"val/bpb": 1.5}, step=2, total_steps=3)
    tracker.log({"train/loss": 1.0}, step=3, total_steps=3)
    assert tracker.series("train/loss") == [(1, 2.0), (3, 1.0)]
    assert tracker.total_steps == 3


def test_everything_reaches_every_tracker() -> None:
    first, second = MemoryTracker(), MemoryTracker()
    both = MultiTracker([first, second])
    both.log_params({"depth": 4})
    both.log({"train/loss": 2.0}, step=1, total_steps=1)
    both.log_text("Once upon a time", step=1)
    both.close()
    assert first == second
    assert first.params == {"depth": 4} and first.texts == [(1, "Once upon a time")] and first.closed


def test_a_tracker_that_fails_is_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    memory = MemoryTracker()
    both = MultiTracker([_Broken(), memory])
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            both.log({"train/loss": 1.0}, step=step, total_steps=3)
    assert len(memory.metrics) == 3
    assert [r.message for r in caplog.records] == ["_Broken failed and is left out from here on"]
