"""Bytes that are not what their name says are never handed out: on every kind of store, at every use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flows.store import Record, Store, proofs
from flows.store.fingerprint import fingerprint
from flows.store.records import ArtifactFile, blob_name
from flows.store.storage.retry import Retry
from flows.store.verify import repair, verify
from nanochat.errors import Damaged, StoreUnavailable

PAYLOAD = {"stage": "pretrain"}
KEY = fingerprint(PAYLOAD)


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path) -> Store:
    url = str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path.name}"
    return Store.open(url, cache=tmp_path / "cache", retry=Retry(attempts=2, first_wait_s=0.001))


@pytest.fixture
def local(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


@pytest.fixture
def out(tmp_path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 123)
    (folder / "config.json").write_text("{}")
    return folder


def put(store: Store, folder: Path, **more) -> Record:
    return store.commit(
        stage="pretrain", node="pretrain", key=KEY, payload=PAYLOAD, folder=folder, **more
    )  # fmt: skip


def weights(record: Record) -> ArtifactFile:
    return next(file for file in record.files if file.path == "model.safetensors")


def flip(store: Store, record: Record, *, quietly: bool = False) -> None:
    """Change one bit of the stored weights, as a disk does; `quietly`: the times of the file stay."""
    name = blob_name(weights(record).sha256)
    path = store.storage.local_path(name)
    if path is None:
        data = bytearray(store.storage.read(name))
        data[1000] ^= 4
        store.storage.write(name, bytes(data))
        return
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(1000)
        bit = file.read(1)[0] ^ 4
        file.seek(1000)
        file.write(bytes([bit]))
    if quietly:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_one_flipped_bit_is_never_handed_out_and_is_a_miss_until_it_is_made_again(store, out, tmp_path):
    record = put(store, out)
    flip(store, record)
    with pytest.raises(Damaged, match=r"model\.safetensors\) is damaged.*set aside as damaged/") as error:
        store.fetch(record, tmp_path / "in")
    assert "nanochat run RECIPE --until pretrain" in str(error.value.hint)
    assert not (tmp_path / "in" / "model.safetensors").exists()
    assert store.find("pretrain", KEY) is None
    (aside,) = store.storage.listing("damaged")
    assert weights(record).sha256 in aside
    assert put(store, out) == record == store.find("pretrain", KEY)
    again = store.fetch(record, tmp_path / "again") / "model.safetensors"
    assert again.read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("replace", [True, False])
def test_making_it_again_does_not_trust_that_the_size_is_right(store, out, tmp_path, replace):
    record = put(store, out)
    flip(store, record, quietly=True)
    put(store, out, replace=replace)
    assert list(verify(store)) == []
    got = store.fetch(record, tmp_path / "in") / "model.safetensors"
    assert got.read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_damaged_blob_that_another_reader_has_set_aside_is_missing(store, out, tmp_path, monkeypatch):
    record = put(store, out)
    flip(store, record)
    name, hash_ = blob_name(weights(record).sha256), store.storage.hash

    def hash_after_another_reader(asked: str) -> tuple[int, str]:
        if asked == name and store.storage.found(name):
            store.storage.set_aside(name)
        return hash_(asked)

    monkeypatch.setattr(store.storage, "hash", hash_after_another_reader)
    with pytest.raises(Damaged, match=r"model\.safetensors\) is missing"):
        store.fetch(record, tmp_path / "in")


def test_a_changed_copy_on_this_machine_is_fetched_again(tmp_path, out):
    store = Store.open(f"memory://{tmp_path.name}", cache=tmp_path / "cache")
    record = put(store, out)
    copy = store.blob_path(weights(record))
    copy.chmod(0o644)
    copy.write_bytes(bytes(copy.stat().st_size))
    assert store.read_bytes(weights(record)) == (out / "model.safetensors").read_bytes()
    assert store.find("pretrain", KEY) == record


def test_bytes_that_change_on_their_way_are_an_outage_and_set_nothing_aside(tmp_path, out, monkeypatch):
    store = Store.open(f"memory://{tmp_path.name}", cache=tmp_path / "cache", retry=Retry(2, 0.001))
    record = put(store, out)

    def garbled(*_: object) -> None:
        raise Damaged("download: its bytes hash to 0")

    monkeypatch.setattr(store.storage, "download", garbled)
    with pytest.raises(StoreUnavailable, match="may be sound"):
        store.fetch(record, tmp_path / "in")
    assert store.find("pretrain", KEY) == record


def test_a_proven_file_is_read_once_a_day_and_whenever_it_was_written(local, out, tmp_path, monkeypatch):
    file = weights(put(local, out))
    long_ago = time.time() - 7
    os.utime(local.blob_path(file), (long_ago, long_ago))
    reads = []
    hash_ = local.storage.hash
    monkeypatch.setattr(local.storage, "hash", lambda name: (reads.append(name), hash_(name))[1])
    monkeypatch.setattr(proofs, "_SETTLED_S", 0.0)  # the time of the file's inode cannot be set
    for opened in (local, Store(local.storage, tmp_path / "cache")):  # the second reads what the first noted
        opened.blob_path(file)
        opened.blob_path(file)
    assert len(reads) == 1
    monkeypatch.setattr(proofs, "GOOD_FOR_S", 0.0)
    local.blob_path(file)
    assert len(reads) == 2


def test_a_file_that_has_just_changed_is_not_remembered(local, out):
    file = weights(put(local, out))
    local.blob_path(file)
    assert not (local.cache / "proven.jsonl").exists()


def test_damage_that_leaves_all_times_alone_is_known_once_verify_has_seen_it(
    local, out, tmp_path, monkeypatch
):
    monkeypatch.setattr(proofs, "_SETTLED_S", 0.0)
    monkeypatch.setattr(proofs, "_line", lambda found, sha256: f"{found.st_ino}:{sha256}")  # blind to times
    record = put(local, out)
    local.fetch(record, tmp_path / "in")
    flip(local, record)
    local.fetch(record, tmp_path / "in")
    assert [f.name for f in verify(local)] == [blob_name(weights(record).sha256)]
    with pytest.raises(Damaged, match="set aside"):
        local.fetch(record, tmp_path / "in")


@pytest.mark.parametrize("text", ["", "[", '["a", "b"]\nnull\n[1]\n', "\xff"])
def test_lost_proofs_cost_only_time(tmp_path, out, text):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "proven.jsonl").write_text(text, encoding="latin-1")
    store = Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    record = put(store, out)
    assert store.fetch(record, tmp_path / "in")


def test_old_proofs_are_thinned_out(tmp_path, monkeypatch):
    monkeypatch.setattr(proofs, "_LINES", 3)
    monkeypatch.setattr(proofs, "_SETTLED_S", -1e9)
    path = tmp_path / "proven.jsonl"
    for n in range(5):
        (tmp_path / str(n)).write_text(str(n))
        proofs.Proofs(path).remember((tmp_path / str(n)).stat(), str(n))
    proofs.Proofs(path).forget((tmp_path / "0").stat(), "0")
    known = [proofs.Proofs(path).known((tmp_path / str(n)).stat(), str(n)) for n in range(5)]
    assert known == [False, True, True, True, True]
    assert len(path.read_text().splitlines()) == 4


def test_another_result_for_the_same_key_is_never_silent(store, out, tmp_path, caplog):
    record = put(store, out)
    flip(store, record)
    with pytest.raises(Damaged):
        store.fetch(record, tmp_path / "in")
    (out / "model.safetensors").write_bytes(b"other weights")
    assert put(store, out).digest != record.digest
    assert "gave a different result than before" in caplog.text and "has lost its bytes" in caplog.text
    caplog.clear()
    (out / "model.safetensors").write_bytes(b"and others")
    put(store, out, replace=True)
    assert "gave a different result than before" in caplog.text


def test_repair_sets_aside_what_is_damaged_and_leaves_the_rest(local, out, tmp_path):
    record = put(local, out)
    flip(local, record)
    root, stray = tmp_path / "store" / "roots" / "mine.json", tmp_path / "store" / "blobs" / "notes.txt"
    root.parent.mkdir()
    root.write_text("{")
    stray.write_text("not ours")
    told = {finding.name: repair(local, finding) for finding in verify(local)}
    assert "set aside as damaged/" in told.pop(blob_name(weights(record).sha256))
    assert "what it keeps is unknown" in told.pop("roots/mine.json") and root.exists()
    assert "no run reads it" in told.pop("blobs/notes.txt") and stray.exists()
    assert told == {}
    assert local.find("pretrain", KEY) is None and put(local, out) == record


def test_repair_puts_a_remote_blob_in_again_from_the_local_copy(tmp_path, out):
    store = Store.open(f"memory://{tmp_path.name}", cache=tmp_path / "cache")
    record = put(store, out)
    store.fetch(record, tmp_path / "in")
    flip(store, record)
    (finding,) = verify(store)
    assert repair(store, finding) == "put in again from the copy on this machine"
    assert list(verify(store)) == [] and store.find("pretrain", KEY) == record


def test_a_record_that_repair_set_aside_is_made_again(local, out, tmp_path):
    record = put(local, out)
    (tmp_path / "store" / "records" / "pretrain" / f"{KEY}.json").write_text("{}")
    (finding,) = verify(local)
    assert repair(local, finding).startswith("set aside as damaged/")
    assert list(verify(local)) == [] and put(local, out) == record
