"""What garbage collection keeps and what it removes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flows.store import Store
from flows.store.fingerprint import fingerprint
from flows.store.gc import collect
from flows.store.records import to_bytes
from flows.store.verify import verify
from nanochat.errors import StoreError

_DAY = 86400.0


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def put(store: Store, tmp_path: Path, stage: str, *made_from, text: str | None = None, n: int = 0):
    payload = {"stage": stage, "n": n}
    folder = tmp_path / "out" / f"{stage}{n}"
    folder.mkdir(parents=True)
    (folder / "file.txt").write_text(text or f"{stage} {n}")
    inputs = {r.stage: {"stage": r.stage, "key": r.key, "digest": r.digest} for r in made_from[:1]}
    if len(made_from) > 1:
        inputs["others"] = [{"stage": r.stage, "key": r.key, "digest": r.digest} for r in made_from[1:]]
    return store.commit(
        stage=stage, node=stage, key=fingerprint(payload), payload=payload, folder=folder, inputs=inputs
    )


def age(store: Store, days: float) -> None:
    """Make everything in the store this many days old."""
    when = time.time() - days * _DAY
    for path in Path(store.url).rglob("*"):
        os.utime(path, (when, when))


def ref(record):
    return (record.stage, record.key)


def test_roots_keep_all_they_were_made_from_and_the_rest_goes(store, tmp_path):
    shards = [put(store, tmp_path, "tokenize", n=n) for n in range(3)]
    model = put(store, tmp_path, "pretrain", *shards)
    other = put(store, tmp_path, "pretrain", n=7)
    store.set_root("run", [ref(model)])
    age(store, 30)
    report = collect(store, grace_s=_DAY)
    assert report.records == (ref(other),)
    assert report.kept_records == 4
    assert len(report.names) == 2
    assert report.freed_bytes == other.files[0].size + len(to_bytes(other))
    assert set(store.find_many([ref(r) for r in (*shards, model, other)])) == {
        ref(r) for r in (*shards, model)
    }
    assert list(verify(store)) == []
    assert len(store.storage.listing("blobs")) == 4


def test_a_dry_run_reports_the_same_and_removes_nothing(store, tmp_path):
    put(store, tmp_path, "pretrain")
    store.set_root("run", [ref(put(store, tmp_path, "sft"))])
    age(store, 30)
    before = store.storage.listing("")
    dry = collect(store, grace_s=_DAY, dry_run=True)
    assert store.storage.listing("") == before
    wet = collect(store, grace_s=_DAY)
    assert (wet.records, sorted(wet.names), wet.freed_bytes) == (
        dry.records,
        sorted(dry.names),
        dry.freed_bytes,
    )
    assert dry.names


def test_what_is_younger_than_the_grace_period_stays(store, tmp_path):
    store.set_root("run", [ref(put(store, tmp_path, "sft"))])
    age(store, 30)
    young = put(store, tmp_path, "pretrain")
    collect(store, grace_s=_DAY)
    assert store.find(*ref(young)) == young


def test_a_young_record_keeps_its_old_inputs(store, tmp_path):
    old = put(store, tmp_path, "tokenize")
    store.set_root("run", [ref(put(store, tmp_path, "sft"))])
    age(store, 30)
    put(store, tmp_path, "pretrain", old)
    collect(store, grace_s=_DAY)
    assert store.find(*ref(old)) == old


def test_an_old_blob_that_is_used_again_becomes_young(store, tmp_path):
    first = put(store, tmp_path, "pretrain", text="same")
    store.set_root("run", [ref(put(store, tmp_path, "sft"))])
    age(store, 30)
    put(store, tmp_path, "midtrain", text="same")
    (blob,) = [store.storage.found(f"blobs/{f.sha256[:2]}/{f.sha256}") for f in first.files]
    assert time.time() - blob.mtime < _DAY


def test_a_running_stage_keeps_what_it_reads_and_its_restart_points(store, tmp_path):
    read = put(store, tmp_path, "tokenize")
    store.set_root("run", [ref(put(store, tmp_path, "sft"))])
    running, dead = "a" * 64, "d" * 64
    for key in (running, dead):
        store.restart_points("pretrain", key).save(1, tmp_path / "out" / "sft0")
    with store.acquire("pretrain", running, needs=[ref(read)]) as lease:
        age(store, 30)
        collect(store, grace_s=_DAY)
        assert store.find(*ref(read)) == read
        assert store.restart_points("pretrain", running).latest() is not None
        assert store.restart_points("pretrain", dead).latest() is None
        lease.check()


def test_without_roots_it_refuses_unless_told(store, tmp_path):
    put(store, tmp_path, "pretrain")
    age(store, 30)
    with pytest.raises(StoreError, match="no roots"):
        collect(store)
    collect(store, without_roots=True)
    assert not store.storage.listing("records") and not store.storage.listing("blobs")


def test_a_dropped_root_keeps_nothing(store, tmp_path):
    model = put(store, tmp_path, "pretrain")
    store.set_root("mine", [ref(model)])
    assert store.roots() == {"mine": [ref(model)]}
    store.drop_root("mine")
    assert store.roots() == {}


def test_a_damaged_record_that_is_needed_stops_the_collection(store, tmp_path):
    model = put(store, tmp_path, "pretrain")
    store.set_root("run", [ref(model)])
    age(store, 30)
    name = Path(store.url) / "records" / "pretrain" / f"{model.key}.json"
    name.write_text("{")
    with pytest.raises(StoreError, match="needed but damaged"):
        collect(store, grace_s=_DAY)
    assert store.storage.listing("blobs")
