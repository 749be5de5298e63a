from __future__ import annotations

import threading

from nanochat.tracking.event_queue import (
    AddMetrics,
    AddText,
    BeginRun,
    EndRun,
    RunHandle,
    TrackingQueue,
    merge_metrics,
)


def _metrics(run: RunHandle, step: int) -> AddMetrics:
    return AddMetrics(run, {"train/loss": float(step)}, step, time_ms=0)


def test_full_queue_drops_the_oldest_metrics_and_keeps_begin_and_end() -> None:
    queue, run = TrackingQueue(capacity=3), RunHandle("pretrain")
    queue.put(BeginRun(run, {}, 0))
    for step in range(10):
        queue.put(_metrics(run, step))
    queue.put(EndRun(run, "FINISHED", 0))
    events = queue.take(100)
    assert [type(e) for e in events] == [BeginRun, AddMetrics, AddMetrics, AddMetrics, EndRun]
    assert [e.step for e in events if isinstance(e, AddMetrics)] == [7, 8, 9]
    assert queue.dropped == 7


def test_final_metrics_survive_a_full_queue() -> None:
    queue, run = TrackingQueue(capacity=1), RunHandle("sft")
    queue.put(AddMetrics(run, {"seconds": 3.0}, 0, 0, lossy=False))
    for step in range(5):
        queue.put(_metrics(run, step))
    first = queue.take(1)[0]
    assert isinstance(first, AddMetrics) and first.metrics == {"seconds": 3.0}


def test_closed_queue_takes_nothing_more_but_gives_what_it_has() -> None:
    queue, run = TrackingQueue(capacity=10), RunHandle("x")
    queue.put(_metrics(run, 1))
    queue.close()
    queue.put(_metrics(run, 2))
    assert [e.step for e in queue.take(10) if isinstance(e, AddMetrics)] == [1]
    assert queue.dropped == 1 and len(queue) == 0


def test_closing_wakes_a_waiting_thread() -> None:
    queue = TrackingQueue(capacity=1)
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(queue.wait_closed(60.0)))
    thread.start()
    queue.close()
    thread.join(30.0)
    assert woken == [True]


def test_who_is_in_a_hurry_ends_one_rest() -> None:
    queue = TrackingQueue(capacity=1)
    queue.hurry()
    assert queue.rest(600.0) is False
    assert queue.rest(0.001) is False  # at its end, as nobody is in a hurry any more
    queue.close()
    assert queue.rest(600.0) is True


def test_metrics_of_a_run_are_merged_but_never_pass_its_other_events() -> None:
    a, b = RunHandle("a"), RunHandle("b")
    text, end = AddText(a, "hello", 2), EndRun(a, "FINISHED", 0)
    events = [_metrics(a, 1), _metrics(b, 1), _metrics(a, 2), text, _metrics(a, 3), _metrics(b, 2), end]
    assert merge_metrics(events) == [
        [_metrics(a, 1), _metrics(a, 2)],
        [_metrics(b, 1), _metrics(b, 2)],
        text,
        [_metrics(a, 3)],
        end,
    ]
