"""Making one artifact: whose lease it is, what a stop does, what is left on this machine."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

import flows.run.execute
from flows import dag
from flows.plan.key import payload_of
from flows.run.execute import ExecutionContext, Job, Outcome, execute
from flows.run.scratch import sweep
from flows.store import Store, leases
from flows.store.fingerprint import fingerprint
from nanochat import recipes
from nanochat.errors import Interrupted
from nanochat.runtime import NullTracker, Runtime

NODE = dag.build(recipes.find("toy"))[0]
PAYLOAD = payload_of(NODE, {})
JOB = Job(node=NODE, key=fingerprint(PAYLOAD), payload=PAYLOAD, inputs={}, lineage={})


@pytest.fixture
def context(tmp_path):
    return ExecutionContext(
        store=Store.open(str(tmp_path / "store")), scratch=tmp_path / "s", runtime=Runtime()
    )


@pytest.fixture
def run(context, monkeypatch):
    """Execute the job with a function in place of its stage's."""

    def run(function) -> Outcome:
        monkeypatch.setattr(flows.run.execute, "run_function", lambda name: function)
        return execute(JOB, context, NullTracker, dict)

    return run


def lease_name():
    return f"leases/{NODE.stage.name}/{JOB.key}.1.json"


def test_a_stop_ends_the_wait_for_another_run(run, context):
    held = leases.try_acquire(context.store.storage, NODE.stage.name, JOB.key, ttl_s=600)
    timer = threading.Timer(0.3, context.runtime.stop.set)
    timer.start()
    with held, pytest.raises(Interrupted, match="waiting"):
        run(lambda *_: pytest.fail("another run makes it"))
    timer.join()


def test_nothing_new_begins_after_a_stop(run, context):
    context.runtime.stop.set()
    with pytest.raises(Interrupted):
        run(lambda *_: pytest.fail("the run was asked to stop"))


def test_a_run_whose_lease_was_taken_over_ends_with_the_other_runs_result(run, context, tmp_path, caplog):
    store, theirs = context.store, tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "text").write_text("theirs")

    def lose(config, inputs, out, runtime):
        store.storage.delete(lease_name())
        store.commit(stage=NODE.stage.name, node=NODE.id, key=JOB.key, payload=PAYLOAD, folder=theirs)
        (out / "text").write_text("ours")
        return {}

    outcome = run(lose)
    assert outcome.cached
    assert store.read_bytes(outcome.record.files[0]) == b"theirs"
    assert "took over" in caplog.text


def test_a_stage_that_a_lost_lease_stopped_is_not_taken_for_a_stop_by_the_user(run, context):
    tries = []

    def stopped_once(config, inputs, out, runtime):
        tries.append(runtime.restart_points.lease)
        if len(tries) == 1:
            context.store.storage.delete(lease_name())
            with pytest.raises(flows.run.execute.LeaseLost):  # what the lease's own thread would find out
                tries[0].check()
            runtime.raise_if_stopped()
        (out / "text").write_text("made at last")
        return {}

    assert not run(stopped_once).cached
    assert len(tries) == 2


def test_a_stage_has_a_folder_of_its_own_until_it_ends(run, context):
    def look(config, inputs, out, runtime):
        (runtime.scratch / "temporary").write_text("gone afterwards")
        sweep(context.scratch)
        (out / "text").write_text((runtime.scratch / "temporary").read_text())
        return {}

    run(look)
    assert list(context.scratch.iterdir()) == []


@pytest.mark.parametrize("setting", [{"micro_batch_rows": 3}, {"processes": 2}, {"device": "cuda"}])
def test_an_artifact_is_found_again_however_the_next_run_would_make_it(setting, run, context, monkeypatch):
    made = run(lambda config, inputs, out, runtime: (out / "text").write_text("made") and {})
    other = replace(context, runtime=replace(context.runtime, **setting))
    again = execute(JOB, other, NullTracker, dict)
    assert (made.cached, again.cached) == (False, True)
    assert again.record.key == made.record.key


@pytest.mark.parametrize(("stage", "processes", "where"), [("sft", 2, "ranks"), ("sft", 1, "here"),
                                                           ("evaluate_sft", 2, "ranks"),
                                                           ("tokenizer", 2, "here")])  # fmt: skip
def test_a_stage_that_spreads_runs_on_ranks_if_there_are_several(
    stage, processes, where, monkeypatch, tmp_path
):
    node = next(n for n in dag.build(recipes.find("toy")) if n.id == stage)
    ran = []
    monkeypatch.setattr(flows.run.execute, "launch", lambda *given: ran.append(("ranks", given)))
    monkeypatch.setattr(
        flows.run.execute, "run_function", lambda name: lambda *given: ran.append(("here", given))
    )
    runtime = Runtime(processes=processes)
    flows.run.execute._run(node, {}, tmp_path, runtime)
    given = (node.config, {}, tmp_path, runtime)
    assert ran == [(where, (node.stage.run, *given) if where == "ranks" else given)]
