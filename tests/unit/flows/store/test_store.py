from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.store import Store
from flows.store.fingerprint import fingerprint
from flows.store.leases import Lease
from flows.store.storage.retry import Retry
from nanochat.errors import Damaged, Interrupted, StoreError, StoreUnavailable

QUICK = Retry(attempts=2, first_wait_s=0.001)


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path) -> Store:
    url = str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path.name}"
    return Store.open(url, cache=tmp_path / "cache", retry=QUICK)


@pytest.fixture
def local(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache", retry=QUICK)


@pytest.fixture
def folder(tmp_path) -> Path:
    out = tmp_path / "out"
    (out / "part").mkdir(parents=True)
    (out / "model.bin").write_bytes(bytes(range(256)) * 123)
    (out / "part" / "empty.txt").write_bytes(b"")
    (out / "speed.jsonl").write_text('{"tokens_per_s": 17}')
    return out


def put(store: Store, folder: Path, stage="pretrain", n=1, node=None, **kwargs):
    payload = {"stage": stage, "n": n}
    return store.commit(
        stage=stage, node=node or stage, key=fingerprint(payload), payload=payload, folder=folder, **kwargs
    )


def test_what_was_committed_is_found_and_fetched_with_the_same_bytes(store, folder, tmp_path):
    record = put(store, folder, metrics={"loss": 1.5}, provenance={"commit": "abc"})
    assert store.find("pretrain", record.key) == record
    got = store.fetch(record, tmp_path / "in")
    for name in ("model.bin", "part/empty.txt", "speed.jsonl"):
        assert (got / name).read_bytes() == (folder / name).read_bytes()
        assert not (got / name).stat().st_mode & 0o222, "fetched files must be read-only"


def test_an_unknown_key_is_a_miss(store):
    assert store.find("pretrain", "0" * 64) is None
    assert store.find_many([("pretrain", "0" * 64)]) == {}


def test_no_reference_makes_the_store_look_outside_of_itself(store, monkeypatch):
    listing, looked = store.storage.listing, []
    monkeypatch.setattr(store.storage, "listing", lambda name: looked.append(name) or listing(name))
    for stage in ("..", "../..", ".", "a/b", "\x1b[2J", ""):
        with pytest.raises(StoreError, match="has no record of a stage"):
            store.resolve(f"{stage}/ab")
    assert set(looked) <= {"records", "records/a"}


def test_attachments_are_kept_but_are_no_part_of_the_digest(store, folder, tmp_path):
    first = put(store, folder, attachments=("speed.jsonl",))
    (folder / "speed.jsonl").write_text('{"tokens_per_s": 99}')
    second = put(store, folder, n=2, attachments=("speed.jsonl",))
    assert first.digest == second.digest and first.attachments != second.attachments
    assert not (store.fetch(first, tmp_path / "plain") / "speed.jsonl").exists()
    with_them = store.fetch(first, tmp_path / "all", attachments=True)
    assert (with_them / "speed.jsonl").read_text() == '{"tokens_per_s": 17}'


def test_find_many_agrees_with_find(store, folder):
    records = [put(store, folder, stage=stage, n=n) for stage in ("a", "b") for n in range(5)]
    refs = [(r.stage, r.key) for r in records]
    found = store.find_many([*refs, ("a", "f" * 64), ("nowhere", "0" * 64)])
    assert found == dict(zip(refs, records, strict=True))
    assert found == {ref: store.find(*ref) for ref in refs}


@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_a_record_whose_blob_is_damaged_is_a_loud_miss_and_the_next_commit_heals_it(
    local, folder, harm, caplog, tmp_path
):
    record = put(local, folder)
    file = record.files[0]
    blob = local.blob_path(file)
    blob.chmod(0o644)
    blob.unlink() if harm == "removed" else blob.write_bytes(b"cut")
    with caplog.at_level(logging.WARNING):
        assert local.find("pretrain", record.key) is None
        assert local.find_many([("pretrain", record.key)]) == {}
    assert file.sha256[:12] in caplog.text and file.path in caplog.text
    assert set(local.find_records([("pretrain", record.key)])) == {("pretrain", record.key)}
    assert local.missing_blobs([record]) == {("pretrain", record.key)}
    with pytest.raises(Damaged, match=file.sha256[:12]):
        local.fetch(record, tmp_path / "in")
    assert put(local, folder) == record == local.find("pretrain", record.key)


def test_a_lost_attachment_heals_though_its_bytes_differ_each_time(local, folder):
    record = put(local, folder, attachments=("speed.jsonl",))
    local.blob_path(record.attachments[0]).unlink()
    (folder / "speed.jsonl").write_text("other")
    healed = put(local, folder, attachments=("speed.jsonl",))
    assert local.find("pretrain", record.key) == healed != record


def test_a_half_written_record_is_a_loud_miss(local, folder, caplog):
    record = put(local, folder)
    name = Path(local.url) / "records" / "pretrain" / f"{record.key}.json"
    name.write_bytes(name.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        assert local.find("pretrain", record.key) is None
    assert "damaged record" in caplog.text


def test_a_record_whose_files_were_edited_is_no_hit(local, folder):
    record = put(local, folder)
    name = Path(local.url) / "records" / "pretrain" / f"{record.key}.json"
    name.write_text(name.read_text().replace("part/empty.txt", "part/other.txt"))
    assert local.find("pretrain", record.key) is None


def test_the_first_result_stands_and_a_different_one_is_warned_of(store, folder, caplog):
    first = put(store, folder)
    (folder / "model.bin").write_bytes(b"not the same")
    with caplog.at_level(logging.WARNING):
        assert put(store, folder) == first
    assert "model.bin" in caplog.text and "a different result" in caplog.text
    assert "speed.jsonl" not in caplog.text
    replaced = put(store, folder, replace=True)
    assert store.find("pretrain", first.key) == replaced != first


def test_equal_bytes_are_stored_once(local, folder):
    put(local, folder)
    before = set(local.storage.listing("blobs"))
    put(local, folder, n=2)
    assert set(local.storage.listing("blobs")) == before and len(before) == 3


def test_blobs_without_a_record_are_no_artifact(local, folder, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(local.storage, "create", crash)
    with pytest.raises(KeyboardInterrupt):
        put(local, folder)
    assert local.storage.listing("blobs")
    assert local.records() == [] and not local.storage.listing("records")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda out: None, "holds no files"),
        (lambda out: (out / "link").symlink_to("/etc/hostname"), "link or special"),
        (lambda out: os.mkfifo(out / "pipe"), "link or special"),
        (lambda out: (out / "a\nb").write_text("x"), "not every storage"),
        (lambda out: (out / "a\\b").write_text("x"), "not every storage"),
        (lambda out: (out / "a ").write_text("x"), "not every storage"),
        (lambda out: (out / "throughput.jsonl").write_text("x"), "holds no files"),
    ],
)
def test_what_an_artifact_cannot_hold_is_refused(store, tmp_path, make, told):
    out = tmp_path / "bad"
    out.mkdir()
    make(out)
    with pytest.raises(StoreError, match=told):
        put(store, out, attachments=("throughput.jsonl",))
    assert store.records() == []


def test_a_metric_that_json_cannot_hold_is_refused_before_anything_is_uploaded(store, folder):
    with pytest.raises(TypeError, match=r"metrics\.loss is nan"):
        put(store, folder, metrics={"loss": float("nan")})
    assert not store.storage.listing("blobs")


def test_records_are_newest_first(store, folder):
    times = ["2026-01-02T00:00:00+00:00", "2026-01-03T00:00:00+00:00", "2026-01-01T00:00:00+00:00"]
    for n, when in enumerate(times):
        put(store, folder, n=n, provenance={"finished_at": when})
    assert [r.payload["n"] for r in store.records("pretrain")] == [1, 0, 2]
    assert store.resolve("pretrain").payload["n"] == 1


def test_resolve_takes_a_stage_a_node_and_a_unique_prefix(store, folder):
    records = [put(store, folder, stage="tokenize", n=n, node=f"tokenize/shard_{n:05d}") for n in range(30)]
    assert store.resolve(f"tokenize/{records[3].key[:10]}") == records[3]
    assert store.resolve("tokenize/shard_00007") == records[7]
    firsts = [r.key[0] for r in records]
    twice = next(c for c in firsts if firsts.count(c) > 1)
    with pytest.raises(StoreError, match="records match") as ambiguous:
        store.resolve(f"tokenize/{twice}")
    assert all(r.key[:12] in str(ambiguous.value.hint) for r in records if r.key[0] == twice)


def test_resolve_names_the_nearest_stage_and_the_keys_there_are(store, folder):
    record = put(store, folder)
    with pytest.raises(StoreError) as unknown:
        store.resolve("pretrian")
    assert unknown.value.hint == "did you mean 'pretrain'?"
    with pytest.raises(StoreError) as missing:
        store.resolve("pretrain/zzz")
    assert record.key[:12] in str(missing.value.hint)


def test_read_bytes_proves_the_hash(local, folder):
    file = put(local, folder).files[0]
    assert local.read_bytes(file) == (folder / file.path).read_bytes()
    blob = local.blob_path(file)
    blob.chmod(0o644)
    blob.write_bytes(b"x" * file.size)
    with pytest.raises(Damaged, match="hash"):
        local.read_bytes(file)


def test_acquire_gives_the_record_once_there_is_one(store, folder):
    payload = {"stage": "pretrain", "n": 1}
    with store.acquire("pretrain", fingerprint(payload)) as lease:
        assert isinstance(lease, Lease)
        record = put(store, folder, lease=lease)
    assert store.acquire("pretrain", record.key) == record
    with store.acquire("pretrain", record.key, ignore_record=True) as again:
        assert isinstance(again, Lease)
    assert not store.storage.listing("leases")


def test_a_second_run_waits_for_the_first_and_gets_its_record(store, folder):
    key = fingerprint({"stage": "pretrain", "n": 1})
    waits, got = [], []
    with store.acquire("pretrain", key) as lease:
        waiting = threading.Event()

        def second() -> None:
            got.append(
                store.acquire(
                    "pretrain", key, poll_s=0.01, on_wait=lambda info: (waits.append(info), waiting.set())
                )
            )

        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        record = put(store, folder, lease=lease)
        thread.join(10)
    assert got == [record]
    assert [info.pid for info in waits] == [os.getpid()]


def test_waiting_ends_when_the_run_is_asked_to_stop(store):
    stop = threading.Event()
    with store.acquire("pretrain", "a" * 64), pytest.raises(Interrupted):
        store.acquire("pretrain", "a" * 64, poll_s=0.01, stop=stop, on_wait=lambda _: stop.set())


def test_a_full_disk_is_told_with_a_way_out(local, folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("flows.store.storage.local.shutil.copyfileobj", full)
    with pytest.raises(StoreError, match="no space left") as error:
        put(local, folder)
    assert "nanochat gc" in str(error.value.hint)
    assert not local.records() and not local.storage.listing("parts")


_WRITE_AS_NOBODY = """
import os, sys
from pathlib import Path
from flows.store.store import Store
from nanochat.errors import StoreError

url, key, out = sys.argv[1:]
os.setuid(65534)
store = Store.open(url, cache=Path("/nonexistent"))
assert store.find("pretrain", key)
try:
    store.acquire("pretrain", "0" * 64)
except StoreError as error:
    print(error, error.hint)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user to whom the store is read-only")
def test_a_read_only_store_reads_and_says_why_it_does_not_write(local, folder, tmp_path):
    record = put(local, folder)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    ran = subprocess.run(
        [sys.executable, "-c", _WRITE_AS_NOBODY, local.url, record.key, str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "access denied" in ran.stdout and "read-only" in ran.stdout


def test_a_relative_folder_means_the_same_after_a_change_of_directory(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store.open("relative")
    record = put(store, folder)
    monkeypatch.chdir("/")
    assert store.find("pretrain", record.key) == record
    assert Store.open(store.url).find("pretrain", record.key) == record


def test_a_file_or_a_lost_disk_is_no_store(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    with pytest.raises(StoreError, match="not a folder"):
        Store.open(str(tmp_path / "file"))
    with pytest.raises(StoreUnavailable, match="unmounted, which does not exist"):
        Store.open(str(tmp_path / "link"))


def test_an_unknown_kind_of_url_is_refused():
    with pytest.raises(StoreError, match="nosuch"):
        Store.open("nosuch://x")
