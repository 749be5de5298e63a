"""Stages on a work pool, with a server that is acted: which ends are followed by another flow run."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from uuid import uuid4

import pytest

from flows.run import pool as pools
from flows.run import signs_of_life
from flows.run.flow_runs import FlowRunNow
from flows.run.pool import Pool, failed_state, wait_for
from flows.run.signs_of_life import SignsOfLife
from flows.stages import PRETRAIN
from nanochat.errors import (
    ConfigError,
    DataError,
    FileError,
    Interrupted,
    RankKilled,
    StageFailed,
    StoreUnavailable,
    TrainingError,
)

RUNNING = FlowRunNow("1", "toy-pretrain-12345678", "Running", "RUNNING", "", final=False)
DONE = replace(RUNNING, state="Completed", kind="COMPLETED", final=True)
KILLED = replace(RUNNING, state="Crashed", kind="CRASHED", message="exited with status code: -9", final=True)
NAN = TrainingError("loss is nan in step 7")
FULL = "no space left for /home/scratch/{}/out/model.safetensors: {} of 1,000,000 bytes of its disk are free"
OF_TWO_TRIES = [("4711-x8f_2kab", "4,096"), ("815-q_1zzzab", "12,288")]
AWAY = ConnectionRefusedError("no server")


def ended(error):
    state = failed_state(error, PRETRAIN)
    return replace(RUNNING, state=state.name, kind="FAILED", message=state.message, final=True)


class Acted:
    """A server whose flow runs end as listed, one after the other; restart points grow with `steps`."""

    def __init__(self, ends, steps=()):
        self.ends, self.steps = list(ends), list(steps)
        self.submitted, self.said, self.cancelled, self.crashed = [], [], [], []
        self.lease = None

    def run_deployment(self, name, **given):
        self.submitted.append(given)
        return SimpleNamespace(id=uuid4(), name="x", state=None)

    def now(self, flow_run_id):
        answer = self.ends.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self, flow_run_id):
        self.cancelled.append(flow_run_id)
        self.ends.append(replace(RUNNING, state="Cancelled", kind="CANCELLED", final=True))

    def set_crashed(self, flow_run_id, why):
        self.crashed.append(flow_run_id)

    def step(self):
        return self.steps.pop(0) if self.steps else -1


@pytest.fixture
def make(monkeypatch):
    """Return what makes a stage on the acted server."""
    monkeypatch.setattr(pools, "_LOOK_S", 0.0)

    def make(server, **settings):
        @contextmanager
        def opened():
            yield server

        monkeypatch.setattr(pools, "flow_runs", opened)
        monkeypatch.setattr(pools, "run_deployment", server.run_deployment)
        job = SimpleNamespace(node=SimpleNamespace(id="pretrain", stage=PRETRAIN), key="1" * 64, force=True)
        monkeypatch.setattr(pools, "current", lambda storage, stage, key: server.lease)
        store = SimpleNamespace(
            url="store",
            storage=None,
            find=lambda stage, key: "the record",
            restart_points=lambda stage, key: server,
        )
        session = SimpleNamespace(
            job=lambda node: job,
            plan=SimpleNamespace(
                by_id={"pretrain": job}, recipe=SimpleNamespace(name="toy", model_dump=lambda mode: {})
            ),
            context=SimpleNamespace(store=store, runtime=SimpleNamespace(stop=threading.Event())),
            display=SimpleNamespace(mlflow=None, progress=SimpleNamespace(say=server.said.append)),
        )
        return Pool(runtime={}, delay_s=0.0, **settings).make(session, "pretrain")

    return make


@pytest.mark.parametrize(
    "ends",
    [
        [DONE],
        [KILLED, DONE],
        [KILLED, KILLED, KILLED, DONE],
        [ended(StoreUnavailable("no answer")), ended(StoreUnavailable("no answer")), DONE],
        [ended(RankKilled("rank 1 of 2 was ended by SIGKILL")), DONE],
        [ended(NAN), DONE],  # perhaps the machine's fault
        [ended(NAN), KILLED, ended(NAN), DONE],
        [ended(NAN), ended(TrainingError("loss is nan in step 9")), DONE],
        [RUNNING, AWAY, AWAY, RUNNING, KILLED, AWAY, DONE],
    ],
    ids=lambda ends: ", ".join(getattr(end, "state", "away") for end in ends),
)
def test_a_stage_goes_on_in_another_flow_run(make, ends):
    server = Acted(ends)
    assert make(server).record == "the record"
    finals = [end for end in ends if getattr(end, "final", False)]
    assert len(server.submitted) == len(finals)
    assert len({given["idempotency_key"] for given in server.submitted}) == len(finals)
    assert server.submitted[0]["flow_run_name"] == "toy · pretrain · 11111111"
    assert len(server.said) == len(finals) - 1


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([ended(ConfigError("another key", hint="deploy"))], r"pool: ConfigError: another key \(deploy\)"),
        ([ended(DataError("not parquet"))], "DataError: not parquet"),
        ([ended(NAN), ended(NAN)], "twice in the same way: TrainingError: loss is nan in step 7"),
        ([ended(FileError(FULL.format(*own))) for own in OF_TWO_TRIES], "twice in the same way: FileError"),
        ([KILLED] * 3, "3 times without getting further: exited with status code: -9"),
        ([replace(KILLED, state="Cancelled", kind="CANCELLED", message="")], "pool: Cancelled"),
    ],
)
def test_a_stage_that_cannot_go_on_fails_with_its_reason(make, ends, message):
    server = Acted([*ends, DONE])
    with pytest.raises(StageFailed, match=message):
        make(server, restarts=2)
    assert len(server.submitted) == len(ends)


def test_kills_are_not_counted_as_long_as_the_stage_gets_further(make):
    server = Acted([KILLED] * 6 + [DONE], steps=[10, 20, 20, 30, 30, 40])
    make(server, restarts=2)
    assert server.said[0] == "pretrain: exited with status code: -9; goes on from step 10 in 0 s"


def test_a_pipeline_that_is_to_stop_cancels_its_stage_and_waits_for_its_restart_point(monkeypatch):
    monkeypatch.setattr(pools, "_LOOK_S", 0.0)
    server, stop = Acted([]), threading.Event()
    stop.set()
    with pytest.raises(Interrupted, match="toy-pretrain-12345678 is Cancelled"):
        wait_for(server, RUNNING, stop, lambda: False)
    assert server.cancelled == [RUNNING.id]


def test_a_stage_whose_machine_is_gone_goes_on_although_nobody_reported_it(make, monkeypatch):
    monkeypatch.setattr(signs_of_life, "LOST_AFTER_S", 0.0)
    server = Acted([RUNNING, DONE])
    lease = SimpleNamespace(holder="this one", live=False)

    def take_lease(name, **given):
        server.lease = lease
        return Acted.run_deployment(server, name, **given)

    server.run_deployment = take_lease
    make(server)
    assert len(server.submitted) == 2
    assert server.crashed == [RUNNING.id]


def test_a_stage_is_lost_only_if_its_own_lease_has_run_out_for_a_while():
    left, mine, gone = (
        SimpleNamespace(holder=who, live=live) for who, live in (("a", 0), ("b", 1), ("b", 0))
    )
    leases = iter([left, left, mine, gone, mine, gone, None, gone, gone])
    hours = iter(range(0, 3600 * 9, 3600))
    life = SignsOfLife(lambda: next(leases), clock=lambda: next(hours))
    assert [life.lost() for _ in range(8)] == [False] * 7 + [True]


def test_a_store_that_does_not_answer_is_not_a_lost_stage():
    def away():
        raise StoreUnavailable("no answer")

    assert not SignsOfLife(away).lost()
