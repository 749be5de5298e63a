"""A session: what it settles before the threads of a run begin."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.cli.output import stderr
from flows.display.progress import Progress
from flows.display.run_display import RunDisplay
from flows.plan import code_digest, make_plan
from flows.run.execute import ExecutionContext, Outcome
from flows.run.session import Session
from flows.store import Record, Store
from nanochat import recipes
from nanochat.runtime import Runtime


def test_code_is_read_when_a_session_begins_and_not_again_while_stages_run(tmp_path, monkeypatch):
    store = Store.open(str(tmp_path / "store"))
    plan = make_plan(recipes.find("toy"), store)
    code_digest.code_digest.cache_clear()
    with Progress(stderr(), quiet=True) as progress:
        context = ExecutionContext(store=store, scratch=tmp_path / "scratch", runtime=Runtime())
        Session(plan, context, RunDisplay(progress=progress))
    monkeypatch.setattr(code_digest, "_code", lambda: pytest.fail("code was read again"))
    assert all(code_digest.code_digest(p.node.stage) for p in plan.nodes)


def test_what_a_run_killed_at_its_very_end_left_goes_although_nothing_is_left_to_do(tmp_path):
    store, scratch = Store.open(str(tmp_path / "store")), tmp_path / "scratch"
    plan = make_plan(recipes.find("toy"), store)
    done = replace(plan, nodes=tuple(replace(p, action="hit", key="a key") for p in plan.nodes))
    (scratch / "25800-kq15bu79").mkdir(parents=True)
    with Progress(stderr(), quiet=True) as progress:
        context = ExecutionContext(store=store, scratch=scratch, runtime=Runtime())
        Session(done, context, RunDisplay(progress=progress))
    assert list(scratch.iterdir()) == []


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
        Session(plan, context, RunDisplay(progress=progress)).adopt("render/sft", Outcome(record, cached))
    said = [line.split(maxsplit=1) for line in capsys.readouterr().err.splitlines()]
    assert said[-2:] == [["render/sft", "9 rows: 8 used"], ["render/sft", "warning: 1 is lost"]]
