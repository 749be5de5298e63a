from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor

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


def test_a_stage_that_counts_again_has_the_time_left_of_what_it_counts_now(clock):
    out = io.StringIO()
    with Progress(Console(file=out, width=200)) as progress:
        tracker = progress.started("evaluate_sft")
        for name, seconds in (("mmlu", 1), ("gsm8k", 10)):
            for done in (50, 60, 100):
                clock.now += seconds
                tracker.log({f"eval/{name}": 0.5}, step=done, total_steps=100)
        progress.finished("evaluate_sft", "done")
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines == [
        "evaluate_sft step 50/100 mmlu 0.500",
        "evaluate_sft step 50/100 mmlu 0.500 gsm8k 0.500",
        "evaluate_sft step 60/100 mmlu 0.500 gsm8k 0.500 40.0 s left",
        "evaluate_sft step 100/100 mmlu 0.500 gsm8k 0.500 0.0 s left",
        "evaluate_sft done 33.0 s step 100/100 mmlu 0.500 gsm8k 0.500",
    ]


def terminal(width=100, **options):
    return Console(file=io.StringIO(), width=width, force_terminal=True, force_interactive=True, **options)


def frames(console):
    """Return what a terminal was sent, without the codes that move the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def test_a_terminal_shows_a_bar_with_numbers_and_time_left_for_each_running_stage(clock):
    console = terminal(color_system=None)
    with Progress(console) as progress:
        trackers = [progress.started(f"tokenize/{n}") for n in range(3)]
        for done in (250, 500):
            clock.now += 63
            for n, tracker in enumerate(trackers):
                tracker.log({"throughput/documents_per_s": 250.0}, step=n * done, total_steps=1000)
        progress.started("tokenizer")  # draws all
    shown = [" ".join(line.split()) for line in frames(console).splitlines()]
    assert "tokenize/0 0 of 1,000 documents documents/s 250 0:02:06 -:--:-- left" in shown
    assert f"tokenize/1 {'━' * 6} 500 of 1,000 documents documents/s 250 0:02:06 0:02:06 left" in shown
    assert f"tokenize/2 {'━' * 12} 1,000 of 1,000 documents documents/s 250 0:02:06 0:00:00 left" in shown


@pytest.mark.parametrize("width", [80, 63])
def test_a_narrow_terminal_loses_no_number(clock, width):
    console = terminal(width, color_system=None)
    with Progress(console) as progress:
        tracker = progress.started("pretrain")
        metrics = {"train/loss": 2.7182, "val/bpb": 0.9123, "throughput/tokens_per_s": 13045.0}
        tracker.log(metrics | {"throughput/mfu": 0.41}, step=63, total_steps=150)
        progress.started("next")  # draws all
    words = frames(console).split()
    assert {"63/150", "2.7182", "0.9123", "13,045", "41.0%", "left"} <= set(words)


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_turns_colours_off_and_leaves_the_bar(clock, monkeypatch, no_color, coloured):
    monkeypatch.setenv("NO_COLOR", no_color)
    console = terminal(color_system="standard")
    with Progress(console) as progress:
        progress.started("pretrain").log({}, step=75, total_steps=150)
        progress.started("next")  # draws all
    assert bool(re.search(r"\x1b\[(\d+;)*(3[0-7]|9[0-7])", console.file.getvalue())) == coloured
    assert "━" * 6 in frames(console)


@pytest.mark.parametrize("bars", [False, True])
def test_lines_of_many_threads_all_come_out_whole(bars):
    console = terminal() if bars else Console(file=io.StringIO(), width=100)

    def work(n):
        for count in range(63):
            tracker = progress.started(f"shard/{n}")
            tracker.log({}, step=count + 1, total_steps=63)
            tracker.log_text(f"sample {count} end", step=count)
            progress.finished(f"shard/{n}", f"done {count}")

    with Progress(console) as progress, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    lines = [" ".join(line.split()) for line in frames(console).replace("\r", "\n").splitlines()]
    for n in range(4):
        for count in range(63):
            assert lines.count(f"shard/{n} step {count}: sample {count} end") == 1
            ends = [line for line in lines if line.startswith(f"shard/{n} done {count} ")]
            assert len(ends) == 1 and ends[0].endswith(f"step {count + 1}/63")


def test_a_stage_that_starts_again_has_one_line(clock):
    out = io.StringIO()
    with Progress(Console(file=out, width=200)) as progress:
        progress.started("pretrain")
        tracker = progress.started("pretrain")
        progress.finished("pretrain", "done")
        tracker.log({}, step=63, total_steps=150)
    assert [line.split() for line in out.getvalue().splitlines()] == [["pretrain", "done", "0.0", "s"]]
