from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.display import progress as module
from flows.display.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only a test lets pass."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_download_is_told_in_megabytes_with_rate_and_time_left(clock):
    out = io.StringIO()
    with Progress(Console(file=out, width=200)) as progress:
        tracker = progress.started("download/shard_00001")
        tracker.log({"throughput/mb_per_s": 8.0}, step=8, total_steps=97)
        clock.now += 2  # too early for another line
        tracker.log({"throughput/mb_per_s": 12.0}, step=32, total_steps=97)
        clock.now += 8
        tracker.log({"throughput/mb_per_s": 8.25}, step=88, total_steps=97)
        progress.finished("download/shard_00001", "done")
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines == [
        "download/shard_00001 8 of 97 MB MB/s 8.0",
        "download/shard_00001 88 of 97 MB MB/s 8.2 1.1 s left",
        "download/shard_00001 done 10.0 s 88 of 97 MB MB/s 8.2",
    ]


def test_a_terminal_shows_a_bar_for_each_running_stage(clock):
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system=None)
    with Progress(console) as progress:
        for n, done in enumerate((0, 500, 1000)):
            tracker = progress.started(f"tokenize/{n}")
            tracker.log({"throughput/documents_per_s": 250.0}, step=done, total_steps=1000)
        progress._live.refresh()
    shown = out.getvalue()
    assert f"{'░' * 20}  0 of 1,000 documents  documents/s 250" in shown
    assert f"{'█' * 10}{'░' * 10}  500 of 1,000 documents" in shown
    assert f"{'█' * 20}  1,000 of 1,000 documents" in shown
