"""A flow that is cancelled or asked to end stops in order, with a server that is acted."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from flows.run import cancellation
from flows.run.cancellation import run_in_order
from flows.run.flow_runs import FlowRunNow
from nanochat.errors import Interrupted

RUNNING = FlowRunNow("1", "toy-12345678", "Running", "RUNNING", "", final=False)
CANCELLING = replace(RUNNING, state="Cancelling", kind="CANCELLING")
AWAY = ConnectionRefusedError("no server")


class Acted:
    """A server with answers one after the other, the last of them for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = threading.Semaphore(0)
        self.cancelled = []

    @contextmanager
    def open(self):
        yield self

    def now(self, flow_run_id):
        self.asked.release()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def set_cancelled(self, flow_run_id, why):
        self.cancelled.append((flow_run_id, why))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cancellation, "_LOOK_S", 0.001)


def stopped_stage(stop):
    """Return what stages do: go on until they are asked to stop."""

    def body():
        assert stop.wait(60)
        raise Interrupted("step 7 is kept")

    return body


@pytest.mark.parametrize(
    "answers",
    [
        (RUNNING, CANCELLING),
        (RUNNING, *[AWAY] * 50, RUNNING, CANCELLING),
        (replace(CANCELLING, kind="CANCELLED", final=True),),
    ],
    ids=["asked", "after an outage", "already cancelled"],
)
def test_a_cancelled_flow_run_stops_its_stages_and_ends_as_cancelled(answers):
    stop = threading.Event()
    state = run_in_order(stopped_stage(stop), stop, "1", owns_process=False, server=Acted(*answers).open)
    assert state.is_cancelled() and state.message == "step 7 is kept"


def test_a_flow_that_is_not_cancelled_returns_and_raises_as_it_does():
    server, stop = Acted(RUNNING), threading.Event()

    def fails():
        assert server.asked.acquire(timeout=60)
        raise ValueError("a bug")

    assert run_in_order(lambda: 3, stop, "1", owns_process=True, server=server.open) == 3
    with pytest.raises(ValueError, match="a bug"):
        run_in_order(fails, stop, "1", owns_process=True, server=server.open)
    assert not stop.is_set()


def test_a_signal_stops_the_stages_before_it_takes_its_way(monkeypatch):
    stop, ended = threading.Event(), []

    class Terminated(BaseException):
        """As Prefect's own, raised wherever the main thread is."""

    def on_signal(number, frame):
        raise Terminated

    def body():
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(60)
        ended.append("restart point kept")

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        with pytest.raises(Terminated):
            run_in_order(body, stop, "1", owns_process=False, server=Acted(RUNNING).open)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended == ["restart point kept"]


@pytest.mark.parametrize("owns_process", [True, False])
def test_ranks_that_do_not_stop_are_killed(monkeypatch, owns_process):
    monkeypatch.setattr(cancellation, "RANKS_STOP_WITHIN_S", 0.0)
    monkeypatch.setattr(cancellation, "_end_unreported", lambda: None)
    stop = threading.Event()
    code = "import time; time.sleep(600)"
    hanging, other = (
        subprocess.Popen([sys.executable, "-c", code, *words]) for words in (["nanochat.ranks.agent"], [])
    )
    below = [psutil.Process(hanging.pid), *([] if owns_process else [psutil.Process(other.pid)])]
    monkeypatch.setattr(
        psutil.Process, "children", lambda process, recursive: [] if process.pid == hanging.pid else below
    )

    def body():
        hanging.wait()
        raise Interrupted("its ranks were killed")

    server = Acted(RUNNING, CANCELLING)
    assert run_in_order(body, stop, "1", owns_process=owns_process, server=server.open).is_cancelled()
    assert not psutil.pid_exists(hanging.pid)
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_process_whose_own_step_hangs_is_ended_as_cancelled(monkeypatch):
    monkeypatch.setattr(cancellation, "RANKS_STOP_WITHIN_S", 0.0)
    monkeypatch.setattr(cancellation, "ENDS_WITHIN_S", 0.0)
    exits, stop, server = [], threading.Event(), Acted(RUNNING, CANCELLING)
    exited = threading.Event()

    def leave(status):
        exits.append(status)
        exited.set()

    monkeypatch.setattr(cancellation.os, "_exit", leave)
    monkeypatch.setattr(cancellation, "_children", list)  # spares those of other tests
    run_in_order(lambda: exited.wait(60), stop, "1", owns_process=True, server=server.open)
    assert exits[0] == 0
    assert [flow_run_id for flow_run_id, _ in server.cancelled] == ["1"]


def test_a_process_whose_end_nobody_takes_note_of_ends_all_the_same(monkeypatch):
    exits, stop, exited = [], threading.Event(), threading.Event()

    def leave(status):
        exits.append(status)
        exited.set()

    monkeypatch.setattr(cancellation, "REPORTED_WITHIN_S", 0.0)
    monkeypatch.setattr(cancellation.os, "_exit", leave)
    server = Acted(RUNNING, CANCELLING)
    assert run_in_order(
        lambda: stop.wait(60), stop, "1", owns_process=True, server=server.open
    ).is_cancelled()
    assert exited.wait(60) and exits == [1]
