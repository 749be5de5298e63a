from __future__ import annotations

import threading
from dataclasses import dataclass, field

from nanochat.tracking.drain import Drain
from nanochat.tracking.event_queue import (
    AddMetrics,
    BeginRun,
    EndRun,
    RunHandle,
    TrackingEvent,
    TrackingQueue,
)


class _Refused(Exception):
    def get_http_status_code(self) -> int:
        return 400


@dataclass
class _Server:
    """A place to write to whose failures a test chooses."""

    fail: list[Exception] = field(default_factory=list)  # raised by the next writes, in order
    always_fail_on: type | None = None
    up: bool = True
    written: list[object] = field(default_factory=list)
    connects: int = 0

    def connect(self) -> _Server:
        self.connects += 1
        if not self.up:
            raise OSError("connection refused")
        return self

    def answers(self) -> bool:
        return self.up and not self.fail

    def write(self, event: TrackingEvent | list[AddMetrics]) -> None:
        if self.fail:
            raise self.fail.pop(0)
        if self.always_fail_on is not None and isinstance(event, self.always_fail_on):
            raise RuntimeError("internal error")
        self.written.append(event)


def _drain(server: _Server) -> tuple[Drain, TrackingQueue]:
    queue = TrackingQueue(capacity=100)
    drain = Drain("the test server", queue, lambda: server.connect)
    drain.interval_s = 0.001
    return drain, queue


def _one_run(queue: TrackingQueue) -> tuple[RunHandle, list[object]]:
    run = RunHandle("pretrain")
    points = [AddMetrics(run, {"train/loss": float(s)}, s, 0) for s in range(3)]
    begin, end = BeginRun(run, {}, 0), EndRun(run, "FINISHED", 0)
    for event in [begin, *points, end]:
        queue.put(event)
    queue.close()
    return run, [begin, points, end]


def test_everything_queued_before_closing_is_written_in_order() -> None:
    server = _Server()
    drain, queue = _drain(server)
    run, expected = _one_run(queue)
    drain.start()
    assert drain.join(30.0, 30.0)
    assert server.written == expected
    assert run.created.is_set() and not drain.gave_up and drain.errors == 0


def test_server_never_reached_disables_the_window_after_three_calls() -> None:
    server = _Server(up=False)
    drain, queue = _drain(server)
    _one_run(queue)
    drain.start()
    assert drain.join(30.0, 30.0)
    assert drain.gave_up and server.connects == drain.failures_allowed == drain.errors
    assert len(queue) == 0 and queue.dropped == 5


def test_outage_in_mid_run_loses_nothing() -> None:
    server = _Server(fail=[OSError("reset"), OSError("reset")])
    drain, queue = _drain(server)
    _, expected = _one_run(queue)
    drain.start()
    assert drain.join(30.0, 30.0)
    assert server.written == expected
    assert drain.errors == 2 and drain.rejected == 0


def test_what_a_healthy_server_cannot_take_is_left_out_and_counted() -> None:
    server = _Server(always_fail_on=list)
    drain, queue = _drain(server)
    _, (begin, _, end) = _one_run(queue)
    drain.start()
    assert drain.join(30.0, 30.0)
    assert server.written == [begin, end]
    assert drain.rejected == 1 and not drain.gave_up


def test_a_refused_event_is_not_sent_again() -> None:
    server = _Server(fail=[_Refused("bad name")])
    drain, queue = _drain(server)
    run, (_, points, end) = _one_run(queue)
    drain.start()
    assert drain.join(30.0, 30.0)
    assert server.written == [points, end]
    assert drain.errors == drain.rejected == 1
    assert run.created.is_set() and run.run_id is None


def test_waiting_for_a_server_that_hangs_ends_while_its_thread_still_hangs() -> None:
    release = threading.Event()
    queue = TrackingQueue(capacity=10)

    def hang() -> _Server:
        release.wait(60.0)
        raise OSError("timed out")

    drain = Drain("a server that hangs", queue, lambda: hang)
    _one_run(queue)
    drain.start()
    assert not drain.join(60.0, 0.01)
    release.set()
    assert drain.join(30.0, 30.0)


def test_machine_load_is_sampled_for_runs_that_are_open() -> None:
    server = _Server()
    drain, queue = _drain(server)
    drain.system_every_s = 0.0
    run = RunHandle("pretrain")
    drain.open_runs.add(run)
    drain.start()
    for _ in range(2000):
        if len(server.written) >= 2:
            break
        queue.wait_closed(0.01)
    queue.close()
    assert drain.join(30.0, 30.0)
    batches = [w for w in server.written if isinstance(w, list)]
    steps = [m.step for batch in batches for m in batch]
    assert len(steps) >= 2 and steps == list(range(len(steps)))
    assert set(batches[0][0].metrics) == {"system/cpu_percent", "system/memory_bytes"}
