"""What garbage collection keeps and what it removes."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.store import Store, gc, roots
from flows.store.fingerprint import fingerprint
from flows.store.gc import collect
from flows.store.leases import started_at, this_machine
from flows.store.records import blob_name, to_bytes
from flows.store.verify import verify
from nanochat.errors import LeaseLost, StoreError

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


def test_a_dry_run_counts_what_is_to_be_kept_and_writes_no_root(store, tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path / "home"))
    model = put(store, tmp_path, "sft", put(store, tmp_path, "pretrain"))
    put(store, tmp_path, "midtrain")
    age(store, 30)
    before = store.storage.listing("")
    words = ["gc", "--keep", "sft", "--store", store.url, "--json"]
    dry = json.loads(CliRunner().invoke(app, [*words, "--dry-run"]).stdout)
    assert store.storage.listing("") == before
    wet = json.loads(CliRunner().invoke(app, words).stdout)
    assert dry["kept_records"] == wet["kept_records"] == 2
    assert dry["names"] == wet["names"] and len(wet["names"]) == 2
    assert list(store.roots().values()) == [[ref(model)]]


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


def test_bytes_that_a_collector_takes_while_they_are_used_again_are_put_in_again(
    store, tmp_path, monkeypatch
):
    (old,) = put(store, tmp_path, "pretrain", text="same").files
    upload = store.blobs.upload

    def upload_then_lose(scanned, *, suspect=False):
        upload(scanned, suspect=suspect)
        monkeypatch.undo()
        store.storage.delete(blob_name(old.sha256))  # by one that looked at its age before, and has ended

    monkeypatch.setattr(store.blobs, "upload", upload_then_lose)
    record = put(store, tmp_path, "midtrain", text="same")
    assert store.find(*ref(record)) == record


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


USERS = (
    "parts/wheel.step", "resume/cv.pdf", "resume/acme/cover letter.odt", "damaged/photo.jpg",
    "probe/2026/log.csv", "leases/flat.pdf", "blobs/ab/cd",
    "records/abba/waterloo.flac", "roots/oak.json.txt",
)  # fmt: skip


def test_what_a_user_keeps_in_folders_of_the_same_names_stays(store, tmp_path):
    record = put(store, tmp_path, "sft")
    store.set_root("toy", [ref(record)])
    gone = [f"resume/sft/{'a' * 64}/00000001-ab/files/x", f"parts/{'0' * 32}", f"damaged/{'a' * 64}.0123abcd"]
    for name in (*USERS, *gone):
        store.storage.write(name, b"theirs")
    age(store, 30)
    store.sweep()
    collect(store, grace_s=0.0)
    kept = [name for name in (*USERS, *gone) if store.storage.found(name)]
    assert kept == list(USERS)


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


def collect_while(store, work, monkeypatch):
    """Collect without a grace period; once it is decided what goes, do the work, and wait for its end."""
    remove = gc._remove

    def work_first(*args):
        thread.start()
        began.wait(10)
        return remove(*args)

    began = threading.Event()
    thread = threading.Thread(target=work, args=(began.set,))
    monkeypatch.setattr(gc, "_remove", work_first)
    monkeypatch.setattr(roots, "_LOOK_S", 0.01)
    report = collect(store, grace_s=0, without_roots=True)
    thread.join(10)
    return report


def test_bytes_that_a_commit_found_and_a_collector_took_are_uploaded_again(store, tmp_path, monkeypatch):
    before = put(store, tmp_path, "pretrain", text="same")
    age(store, 0.5 / 24)
    publish = store._publish

    def commit(began):
        def published(*args, **options):
            kept = publish(*args, **options)
            began()
            return kept

        monkeypatch.setattr(store, "_publish", published)
        put(store, tmp_path, "midtrain", text="same")

    report = collect_while(store, commit, monkeypatch)
    assert report.records == (ref(before),) and len(report.names) == 2
    assert store.resolve("midtrain").files == before.files
    assert store.find(*ref(store.resolve("midtrain")))


def test_what_a_hold_names_while_a_collector_runs_is_looked_at_after_it(store, tmp_path, monkeypatch):
    record = put(store, tmp_path, "pretrain")
    age(store, 1)
    found = []

    def plan(began):
        with store.hold("plan") as hold:
            began()
            hold.add([ref(record)])
            found.append(store.find(*ref(record)))

    collect_while(store, plan, monkeypatch)
    assert found == [None]


def test_what_runs_keeps_all_it_holds_without_a_grace_period_until_it_ends(store, tmp_path):
    store.set_root("run", [ref(put(store, tmp_path, "sft"))])
    text = put(store, tmp_path, "download")
    tokens = put(store, tmp_path, "tokenize", text)
    store.restart_points("pretrain", "b" * 64).save(1, tmp_path / "out" / "sft0")
    with store.hold("plan") as hold:
        hold.add([ref(tokens), ("pretrain", "b" * 64)])
        age(store, 30)
        assert collect(store, grace_s=0).records == ()
        assert store.restart_points("pretrain", "b" * 64).latest() is not None
        assert list(store.roots()) == ["run"]
    age(store, 30)
    assert collect(store, grace_s=0).records == (ref(text), ref(tokens))


@pytest.mark.parametrize(
    ("host", "pid", "days", "kept"),
    [
        ("elsewhere", 1, 0.0, True),
        ("elsewhere", 1, 1.0, False),
        (None, None, 1.0, True),  # asleep on this machine, it goes on once it is woken
        (None, 2**22 + 1, 0.0, False),
    ],
)
def test_the_root_of_a_plan_ends_with_its_process_or_when_nobody_renews_it(
    store, tmp_path, host, pid, days, kept
):
    record = put(store, tmp_path, "pretrain")
    root = roots.Root(
        records=(ref(record),), set_at=0.0, ttl_s=3600.0, pid=pid or os.getpid(),
        host=host or this_machine(), started=started_at(os.getpid()),
    )  # fmt: skip
    store.storage.write("roots/running-x.json", root.to_bytes())
    age(store, days)
    time.sleep(0.01)  # so that what was written just now is older than the collection
    report = collect(store, grace_s=0, without_roots=True)
    assert (report.records, "roots/running-x.json" in report.names) == (
        () if kept else (ref(record),),
        not kept,
    )


def test_a_root_that_comes_while_another_goes_is_seen(store, tmp_path, monkeypatch):
    listing = store.storage.listing

    def handed_over(prefix):
        found = listing(prefix)
        store.set_root(
            "result", [("publish", "c" * 64)]
        )  # listed too early to see this, too late for the former
        return found

    monkeypatch.setattr(store.storage, "listing", handed_over)
    assert store.roots() == {"result": [("publish", "c" * 64)]}


def test_only_one_collector_runs_and_one_that_slept_too_long_removes_nothing(store, tmp_path, monkeypatch):
    record = put(store, tmp_path, "pretrain")
    age(store, 30)
    seen = []

    def slept(began):
        with pytest.raises(StoreError, match="being collected already"):
            collect(store, without_roots=True)
        seen.extend(store.storage.listing("leases"))
        store.storage.delete(*seen)  # as a run does that has waited for long enough
        began()

    with pytest.raises(LeaseLost):
        collect_while(store, slept, monkeypatch)
    assert len(seen) == 1 and store.find(*ref(record))
