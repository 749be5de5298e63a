"""A session: what it settles before the threads of a run begin, and what it does about damaged inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.cli import local_run
from flows.cli.local_run import RunOptions, RunResult
from flows.cli.output import stderr
from flows.display.progress import Progress
from flows.display.run_display import RunDisplay
from flows.plan import code_digest, make_plan
from flows.run.execute import ExecutionContext, Outcome
from flows.run.session import Session, begin
from flows.settings import Settings
from flows.stage import Node, Stage
from flows.store import Record, Store
from flows.store.gc import collect
from flows.store.records import blob_name
from flows.store.verify import verify
from nanochat import recipes
from nanochat.errors import Interrupted, StageFailed
from nanochat.runtime import Runtime
from tests.support.small_plans import Shape, SmallConfig, planned_as
from tests.support.stand_ins import with_stand_in_stages


def run(store: Store, scratch: Path, *, force: tuple[str, ...] = ()) -> Session:
    """Make every node of the toy with a stand-in for its stage."""
    with with_stand_in_stages(), Progress(stderr(), quiet=True) as progress:
        plan = make_plan(recipes.find("toy"), store, force=force)
        context = ExecutionContext(store=store, scratch=scratch, runtime=Runtime())
        with begin(plan, context, RunDisplay(progress=progress), force=force) as session:
            for planned in session.plan.nodes:
                session.make(planned.node.id)
    return session


def flip(store: Store, record: Record) -> None:
    path = Path(store.url, blob_name(record.files[0].sha256))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_damaged_inputs_are_made_again_within_the_run_and_so_are_theirs(tmp_path, caplog):
    store = Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    first = run(store, tmp_path / "scratch").records
    for node in ("pretrain", "tokenize/shard_00000", "tokenize/shard_00001"):
        flip(store, first[node])
    second = run(store, tmp_path / "scratch", force=("midtrain",))
    assert {node: r.digest for node, r in second.records.items()} == {n: r.digest for n, r in first.items()}
    assert second.executed == ["tokenize/shard_00000", "tokenize/shard_00001", "pretrain", "midtrain"]
    assert "pretrain: blob" in caplog.text and "is damaged" in caplog.text
    assert list(verify(store)) == [] and list((tmp_path / "scratch").iterdir()) == []


def test_an_input_that_is_made_again_with_other_bytes_ends_the_run_and_the_next_uses_them(
    tmp_path, monkeypatch
):
    store = Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    first = run(store, tmp_path / "scratch").records
    flip(store, first["pretrain"])
    monkeypatch.setattr("tests.support.stand_ins._WORK_BYTES", b"other")
    with pytest.raises(StageFailed, match="pretrain was damaged and has been made again, with other bytes"):
        run(store, tmp_path / "scratch", force=("midtrain",))
    after = run(store, tmp_path / "scratch").records
    assert after["midtrain"].key != first["midtrain"].key
    assert after["midtrain"].inputs["model"]["digest"] == after["pretrain"].digest
    assert store.find("midtrain", first["midtrain"].key) == first["midtrain"]


def test_code_is_read_when_a_session_begins_and_not_again_while_stages_run(tmp_path, monkeypatch):
    store = Store.open(str(tmp_path / "store"))
    plan = make_plan(recipes.find("toy"), store)
    code_digest.code_digest.cache_clear()
    with Progress(stderr(), quiet=True) as progress:
        context = ExecutionContext(store=store, scratch=tmp_path / "scratch", runtime=Runtime())
        with begin(plan, context, RunDisplay(progress=progress)):
            pass
    monkeypatch.setattr(code_digest, "_code", lambda: pytest.fail("code was read again"))
    assert all(code_digest.code_digest(p.node.stage) for p in plan.nodes)


def test_what_a_run_killed_at_its_very_end_left_goes_although_nothing_is_left_to_do(tmp_path):
    store, scratch = Store.open(str(tmp_path / "store")), tmp_path / "scratch"
    plan = make_plan(recipes.find("toy"), store)
    done = replace(plan, nodes=tuple(replace(p, action="hit", key="a key") for p in plan.nodes))
    (scratch / "25800-kq15bu79").mkdir(parents=True)
    with Progress(stderr(), quiet=True) as progress:
        context = ExecutionContext(store=store, scratch=scratch, runtime=Runtime())
        Session(done, context, RunDisplay(progress=progress), store.hold("a run"))
    assert list(scratch.iterdir()) == []


SHAPE = Shape(((), (0,), (0,)))  # one text, and two stages that nothing reads
VALUES = [0, 2, 4]


@pytest.fixture
def small(tmp_path):
    """A store, a plan of three nodes in it, and how to run what is planned."""
    store = Store.open(str(tmp_path / "store"))
    context = ExecutionContext(store=store, scratch=tmp_path / "scratch", runtime=Runtime(threads=1))

    def run(plan, until=3):
        with (
            Progress(stderr(), quiet=True) as progress,
            begin(plan, context, RunDisplay(progress=progress)) as session,
        ):
            for planned in session.plan.nodes[:until]:
                session.make(planned.node.id)
        return session

    with planned_as(SHAPE.nodes(VALUES)):
        yield store, make_plan(recipes.find("toy"), store), run


def test_whoever_runs_a_session_its_results_are_a_root_and_its_own_root_is_gone(small):
    store, plan, run = small
    records = run(plan).records
    results = [(r.stage, r.key) for r in (records["s1"], records["s2"])]
    assert store.roots() == {"toy-s2": results}
    assert len(store.storage.listing("roots")) == 1
    assert collect(store, grace_s=-1).kept_records == 3


def test_a_session_that_failed_leaves_the_root_of_the_last_one_that_did_not(small):
    store, plan, run = small
    store.set_root("toy-s2", [("s2", "f" * 64)])
    with pytest.raises(KeyError):
        run(replace(plan, nodes=plan.nodes[1:]))  # its input is not made
    assert store.roots() == {"toy-s2": [("s2", "f" * 64)]}
    assert len(store.storage.listing("roots")) == 1


def test_what_was_collected_after_it_was_planned_is_made_again(small, tmp_path, monkeypatch):
    store, plan, run = small
    run(plan)
    cached = make_plan(plan.recipe, store)
    assert cached.all_cached
    collect(store, grace_s=-1, without_roots=store.drop_root("toy-s2") is None)
    monkeypatch.setattr(local_run, "_run_flow", lambda plan, *_: RunResult(run(plan).records, ("all",)))
    options = RunOptions(runtime={})
    settings = Settings.from_environment({"NANOCHAT_HOME": str(tmp_path)})
    result = local_run.run_plan(cached, store, settings, options, stderr())
    assert result.executed == ("all",)
    assert {n: store.read_bytes(r.files[0]) for n, r in result.records.items()} == SHAPE.contents(VALUES)
    again = local_run.run_plan(make_plan(plan.recipe, store), store, settings, options, stderr())
    assert again.executed == () and again.records == result.records


@pytest.mark.parametrize("cached", [False, True])
def test_what_a_stage_has_to_say_is_printed_whether_it_ran_or_was_cached(tmp_path, cached, capsys):
    store = Store.open(str(tmp_path / "store"))
    plan = make_plan(recipes.find("toy"), store)
    record = Record(
        stage="render",
        key="a" * 64,
        node="render/sft",
        payload={},
        files=(),
        metrics={"notes": ["9 rows: 8 used", "warning: 1 is lost"]},
    )
    with Progress(stderr()) as progress:
        context = ExecutionContext(store=store, scratch=tmp_path / "scratch", runtime=Runtime())
        session = Session(plan, context, RunDisplay(progress=progress), store.hold("a run"))
        session.adopt("render/sft", Outcome(record, cached))
    said = [line.split(maxsplit=1) for line in capsys.readouterr().err.splitlines()]
    assert said[-2:] == [["render/sft", "9 rows: 8 used"], ["render/sft", "warning: 1 is lost"]]


def test_a_stage_that_continues_has_something_to_keep_from_its_first_step_on(tmp_path):
    looks = []

    class Watched(Progress):
        def started(self, node):
            looks.append(session.keeping)
            return super().started(node)

        def report(self, node, metrics, step, total_steps):
            looks.append(session.keeping)
            super().report(node, metrics, step, total_steps)

    stage = Stage(name="s0", version=1, run="tests.support.small_plans:stop_after_a_step", continues=True)
    store = Store.open(str(tmp_path / "store"))
    context = ExecutionContext(store=store, scratch=tmp_path / "scratch", runtime=Runtime(threads=1))
    with (
        planned_as((Node(id="s0", stage=stage, config=SmallConfig(value=0), inputs={}),)),
        Watched(stderr(), quiet=True) as progress,
        pytest.raises(Interrupted),
        begin(make_plan(recipes.find("toy"), store), context, RunDisplay(progress=progress)) as session,
    ):
        session.make("s0")
    assert looks == [False, True] and not session.keeping
    assert session.stopped == "stopped after step 1 of 9; step 1 is kept"
