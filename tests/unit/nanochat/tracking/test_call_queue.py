from __future__ import annotations

import threading
from collections.abc import Sequence

from nanochat.tracking.call_queue import Call, CallQueue, Point, RunHandle, join_points


class _Client:
    """Keeps what was called."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, list[int]]] = []

    def begin(self, run: RunHandle) -> None:
        self.made.append(("begin", run.name, []))

    def points(self, run: RunHandle, points: Sequence[Point]) -> None:
        self.made.append(("points", run.name, [point.step for point in points]))

    def text(self, run: RunHandle) -> None:
        self.made.append(("text", run.name, []))

    def end(self, run: RunHandle) -> None:
        self.made.append(("end", run.name, []))

    def make(self, calls: Sequence[Call]) -> list[tuple[str, str, list[int]]]:
        self.made.clear()
        for call in calls:
            call.make()
        return list(self.made)


def _point(step: int) -> Point:
    return Point({"train/loss": float(step)}, step, time_ms=0)


def test_full_queue_drops_the_oldest_metrics_and_samples_and_keeps_begin_and_end() -> None:
    queue, run, client = CallQueue(capacity=3), RunHandle("pretrain"), _Client()
    queue.put(run, client.begin)
    queue.put(run, client.text, lossy=True)
    for step in range(10):
        queue.put(run, client.points, _point(step), lossy=True)
    queue.put(run, client.end)
    begin, end = ("begin", "pretrain", []), ("end", "pretrain", [])
    kept = [("points", "pretrain", [step]) for step in (7, 8, 9)]
    assert client.make(queue.take(100)) == [begin, *kept, end]
    assert queue.dropped == 8 and run.lossy


def test_a_queue_that_was_emptied_has_room_again() -> None:
    queue, run, client = CallQueue(capacity=2), RunHandle("pretrain"), _Client()
    for step in range(6):
        queue.put(run, client.points, _point(step), lossy=True)
        if step == 1:
            assert len(queue.take(1)) == 1
    assert client.make(queue.take(9)) == [("points", "pretrain", [step]) for step in (4, 5)]
    assert queue.dropped == 3


def test_final_metrics_survive_a_full_queue() -> None:
    queue, run, client = CallQueue(capacity=1), RunHandle("sft"), _Client()
    queue.put(run, client.points, _point(77))
    for step in range(5):
        queue.put(run, client.points, _point(step), lossy=True)
    assert client.make(queue.take(1)) == [("points", "sft", [77])]


def test_closed_queue_takes_nothing_more_but_gives_what_it_has() -> None:
    queue, run, client = CallQueue(capacity=10), RunHandle("x"), _Client()
    queue.put(run, client.points, _point(1), lossy=True)
    queue.close()
    queue.put(run, client.points, _point(2), lossy=True)
    assert client.make(queue.take(10)) == [("points", "x", [1])]
    assert queue.dropped == 1 and len(queue) == 0


def test_what_is_cleared_counts_as_dropped() -> None:
    queue, run, client = CallQueue(capacity=10), RunHandle("x"), _Client()
    queue.put(run, client.begin)
    queue.put(run, client.points, _point(1), lossy=True)
    queue.clear()
    assert queue.dropped == 2 and queue.take(10) == []


def test_closing_wakes_a_waiting_thread() -> None:
    queue = CallQueue(capacity=1)
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(queue.wait_closed(60.0)))
    thread.start()
    queue.close()
    thread.join(30.0)
    assert woken == [True]


def test_who_is_in_a_hurry_ends_one_rest() -> None:
    queue = CallQueue(capacity=1)
    queue.hurry()
    assert queue.rest(600.0) is False
    assert queue.rest(0.001) is False  # at its end, as nobody is in a hurry any more
    queue.close()
    assert queue.rest(600.0) is True


def test_metrics_of_a_run_are_joined_but_never_pass_its_other_calls() -> None:
    queue, a, b, client = CallQueue(capacity=10), RunHandle("a"), RunHandle("b"), _Client()
    for run, step in ((a, 1), (b, 1), (a, 2)):
        queue.put(run, client.points, _point(step), lossy=True)
    queue.put(a, client.text, lossy=True)
    for run, step in ((a, 3), (b, 2)):
        queue.put(run, client.points, _point(step), lossy=True)
    queue.put(a, client.end)
    assert client.make(join_points(queue.take(10))) == [
        ("points", "a", [1, 2]),
        ("points", "b", [1, 2]),
        ("text", "a", []),
        ("points", "a", [3]),
        ("end", "a", []),
    ]
