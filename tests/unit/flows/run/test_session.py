"""A session: what it settles before the threads of a run begin, and what it does about damaged inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.cli.output import stderr
from flows.display.progress import Progress
from flows.display.run_display import RunDisplay
from flows.plan import code_digest, make_plan
from flows.run.execute import ExecutionContext
from flows.run.session import Session
from flows.store import Record, Store
from flows.store.records import blob_name
from flows.store.verify import verify
from nanochat import recipes
from nanochat.errors import StageFailed
from nanochat.runtime import Runtime
from tests.support.stand_ins import with_stand_in_stages


def run(store: Store, scratch: Path, *, force: tuple[str, ...] = ()) -> Session:
    """Make every node of the toy with a stand-in for its stage."""
    with with_stand_in_stages(), Progress(stderr(), quiet=True) as progress:
        plan = make_plan(recipes.find("toy"), store, force=force)
        context = ExecutionContext(store=store, scratch=scratch, runtime=Runtime())
        session = Session(plan, context, RunDisplay(progress=progress), force=force)
        for planned in plan.nodes:
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
