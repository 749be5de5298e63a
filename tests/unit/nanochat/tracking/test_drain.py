from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from nanochat.tracking.call_queue import CallQueue, Point, RunHandle
from nanochat.tracking.drain import Drain


class _Refused(Exception):
    def get_http_status_code(self) -> int:
        return 400


@dataclass
class _Server:
    """A place to write to whose failures a test chooses."""

    fail: list[Exception | None] = field(default_factory=list)  # raised by the next calls, in order
    refuses_metrics: Exception | None = None
    up: bool = True
    written: list[object] = field(default_factory=list)
    connects: int = 0
    silent: bool = False
    loaded: bool = False

    def reach(self) -> None:
        if self.silent:
            raise OSError("timed out")

    def load(self) -> None:
        self.loaded = True

    def connect(self) -> None:
        self.connects += 1
        if not self.up:
            raise OSError("connection refused")

    def answers(self) -> bool:
        return self.up and not self.fail

    def begin(self, run: RunHandle) -> None:
        self._write("begin")
        run.run_id = f"id of {run.name}"

    def add_metrics(self, run: RunHandle, points: Sequence[Point]) -> None:
        if self.refuses_metrics:
            raise self.refuses_metrics
        self._write(list(points))

    def end(self, run: RunHandle) -> None:
        self._write("end")

    def _write(self, what: object) -> None:
        if self.fail and (error := self.fail.pop(0)):
            raise error
        self.written.append(what)


def _drain(server: _Server) -> tuple[Drain, CallQueue]:
    queue = CallQueue(capacity=100)
    drain = Drain("the test server", queue, server)
    drain.interval_s = 0.001
    return drain, queue


def _one_run(queue: CallQueue, server: _Server) -> tuple[RunHandle, list[object]]:
    run = RunHandle("pretrain")
    points = [Point({"train/loss": float(s)}, s, 0) for s in range(3)]
    queue.put(run, server.begin)
    for point in points:
        queue.put(run, server.add_metrics, point, lossy=True)
    queue.put(run, server.end)
    queue.close()
    return run, ["begin", points, "end"]


def test_everything_queued_before_closing_is_written_in_order() -> None:
    server = _Server()
    drain, queue = _drain(server)
    run, expected = _one_run(queue, server)
    drain.start()
    assert drain.join(30.0)
    assert server.written == expected
    assert run.created.is_set() and run.run_id == "id of pretrain"
    assert not drain.gave_up and drain.errors == 0


def test_server_never_reached_disables_the_window_after_three_calls_and_says_why(caplog) -> None:  # type: ignore[no-untyped-def]
    server = _Server(up=False)
    drain, queue = _drain(server)
    _one_run(queue, server)
    drain.start()
    assert drain.join(30.0)
    assert drain.gave_up and server.connects == drain.failures_allowed == drain.errors
    assert len(queue) == 0 and queue.dropped == 5
    assert "no answer from the test server: connection refused" in caplog.text


def test_a_server_that_is_silent_from_the_start_costs_no_import() -> None:
    server = _Server(silent=True)
    drain, queue = _drain(server)
    _one_run(queue, server)
    drain.start()
    assert drain.join(30.0)
    assert drain.gave_up and not server.loaded and server.connects == 0 and drain.errors == 3


def test_outage_in_mid_run_loses_nothing() -> None:
    server = _Server(fail=[OSError("reset"), OSError("reset")])
    drain, queue = _drain(server)
    _, expected = _one_run(queue, server)
    drain.start()
    assert drain.join(30.0)
    assert server.written == expected
    assert drain.errors == 2 and drain.lost == 0


def test_what_a_healthy_server_cannot_take_is_left_out_and_counted() -> None:
    server = _Server(refuses_metrics=RuntimeError("internal error"))
    drain, queue = _drain(server)
    _one_run(queue, server)
    drain.start()
    assert drain.join(30.0)
    assert server.written == ["begin", "end"]
    assert drain.lost == 3 and not drain.gave_up


def test_a_database_that_another_process_keeps_locked_loses_nothing() -> None:
    class _Locked(_Server):
        def answers(self) -> bool:
            return True  # reading goes on

    locked = RuntimeError("(sqlite3.OperationalError) database is locked")
    server = _Locked(fail=[locked] * 4)
    drain, queue = _drain(server)
    _, expected = _one_run(queue, server)
    drain.start()
    assert drain.join(30.0)
    assert server.written == expected
    assert drain.errors == 4 and drain.lost == 0 and not drain.gave_up


def test_a_run_that_lost_events_is_marked_and_another_is_not() -> None:
    server = _Server(refuses_metrics=_Refused("bad name"))
    drain, queue = _drain(server)
    run, _ = _one_run(queue, server)
    drain.start()
    assert drain.join(30.0)
    assert run.lossy and not RunHandle("other").lossy


def test_a_refused_call_is_not_made_again() -> None:
    server = _Server(refuses_metrics=_Refused("bad name"))
    drain, queue = _drain(server)
    _one_run(queue, server)
    drain.start()
    assert drain.join(30.0)
    assert server.written == ["begin", "end"]
    assert drain.errors == 1 and drain.lost == 3


def test_what_was_taken_from_the_queue_and_not_written_before_giving_up_is_counted() -> None:
    server = _Server()
    drain, queue = _drain(server)
    _one_run(queue, server)
    server.fail = [None, *(OSError("reset") for _ in range(4))]
    drain.start()
    assert drain.join(30.0)
    assert drain.gave_up and server.written == ["begin"]
    assert queue.dropped + drain.lost == 4


def test_a_refused_run_is_not_sent_again_and_nothing_about_it_is() -> None:
    server = _Server(fail=[_Refused("bad name")])
    drain, queue = _drain(server)
    run, _ = _one_run(queue, server)
    drain.start()
    assert drain.join(30.0)
    assert server.written == []
    assert drain.errors == drain.lost == 1
    assert run.created.is_set() and run.run_id is None


def test_waiting_for_a_server_that_hangs_ends_while_its_thread_still_hangs() -> None:
    release = threading.Event()

    class _Hanging(_Server):
        def connect(self) -> None:
            release.wait(60.0)
            raise OSError("timed out")

    server = _Hanging()
    drain, queue = _drain(server)
    _one_run(queue, server)
    drain.start()
    assert not drain.join(0.01)
    release.set()
    assert drain.join(30.0)


def test_machine_load_is_sampled_for_runs_that_are_open() -> None:
    server = _Server()
    drain, queue = _drain(server)
    drain.system_every_s = 0.0
    run = RunHandle("pretrain")
    queue.put(run, server.begin)
    drain.open_runs.add(run)
    drain.start()
    for _ in range(2000):
        if len(server.written) >= 3:
            break
        queue.wait_closed(0.01)
    queue.close()
    assert drain.join(30.0)
    batches = [w for w in server.written if isinstance(w, list)]
    steps = [point.step for batch in batches for point in batch]
    assert len(steps) >= 2 and steps == list(range(len(steps)))
    assert set(batches[0][0].numbers) == {"system/cpu_percent", "system/memory_bytes"}
