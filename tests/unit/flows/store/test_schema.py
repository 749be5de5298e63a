"""Whatever is written in a file of the store: it is read as what it says, or named as damaged."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli.record_tables import record_text, records_table
from flows.plan import make_plan
from flows.store import Record, Store
from flows.store.fingerprint import fingerprint
from flows.store.gc import collect
from flows.store.leases import UNREADABLE_S, Lease, LeaseInfo, try_acquire
from flows.store.records import finished_at, from_bytes, input_refs, to_bytes
from flows.store.storage.retry import Retry
from flows.store.verify import verify
from nanochat import recipes
from nanochat.errors import LeaseLost, StoreError
from tests.support.stand_ins import pretend_to_run

HOSTILE = (
    None, True, -1, 10**40, 1e400, float("nan"), "", "x", "../../secret", "/etc/passwd", "2026-13-45",
    "a\x1b[2J", [], {}, [[]], {"a": None}, json.loads("[" * 150 + "]" * 150),
)  # fmt: skip
NOT_JSON = (b"", b"{", b"\xff", b"null", b"[" * 100_000, b'{"a":' * 100_000, b" " * (17 << 20))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache", retry=Retry(2, 0.001))


@pytest.fixture
def record(store, tmp_path) -> Record:
    folder = tmp_path / "out"
    (folder / "part").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "part" / "a.txt").write_text("a")
    made_from = {"stage": "tokenize", "node": "tokenize/a", "key": "1" * 64, "digest": "2" * 64}
    payload = {"stage": "pretrain", "config": {"depth": 2, "rate": 0.5}}
    return store.commit(
        stage="pretrain", node="pretrain", key=fingerprint(payload), payload=payload, folder=folder,
        metrics={"loss": 1.5, "steps": 3},
        inputs={"tokenizer": made_from, "train_tokens": [made_from, made_from]},
        provenance={"seconds": 2.5, "finished_at": "2026-01-01T00:00:00+00:00", "hardware": {"cpu": "x"}},
    )  # fmt: skip


def path_of(store: Store, record: Record) -> Path:
    return Path(store.url, "records", record.stage, f"{record.key}.json")


def changed(value: Any, hostile: Any) -> Iterator[Any]:
    """Yield the value with each of its parts in turn replaced by `hostile`, and with each left out."""
    yield hostile
    if isinstance(value, dict):
        for key, item in value.items():
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: other} for other in changed(item, hostile))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in changed(item, hostile))


def test_whatever_is_in_a_record_it_is_refused_or_safe_to_work_with(record):
    plain, ref = json.loads(to_bytes(record)), (record.stage, record.key)
    del plain["checksum"]  # whoever writes a record on purpose writes one that fits, or none
    refused = 0
    for hostile in HOSTILE:
        for other in changed(plain, hostile):
            try:
                got = from_bytes(json.dumps(other).encode(), ref)
            except ValueError as error:
                assert "\n" not in str(error) and len(str(error)) < 300
                refused += 1
                continue
            for file in (*got.files, *got.attachments):
                assert not Path(file.path).is_absolute() and ".." not in Path(file.path).parts
            assert all(len(key) == 64 for _, key in input_refs(got))
            assert finished_at(got, 7.0) > 0
            fingerprint(got.payload), to_bytes(got), record_text(got), records_table([got])
    assert refused > 500
    assert from_bytes(json.dumps(plain).encode(), ref) == record


def test_a_flipped_bit_anywhere_in_a_record_is_found(record):
    data, ref = to_bytes(record), (record.stage, record.key)
    unseen = []
    for i in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[i // 8] ^= 1 << i % 8
        try:
            if from_bytes(bytes(flipped), ref) != record:
                unseen.append(i)
        except ValueError:
            continue
    assert unseen == []


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("metrics", "loss"), 1.25, "its checksum does not match"),
        (("files", 0, "sha256"), "../../secret", "files.0.sha256"),
        (("files", 0, "path"), "../../secret", "is not a path of a file inside its folder"),
        (("files", 1, "path"), "model.bin/x", "two of its files are in one place"),
        (("attachments",), None, "attachments"),
        (("provenance", "finished_at"), "2026-02-31", "provenance.finished_at"),
        (("provenance", "seconds"), "long", "provenance.seconds"),
        (("inputs", "tokenizer", "key"), "0", "inputs.tokenizer"),
        (("stage",), "sft", "it says that it is sft/"),
        (("key",), "0" * 64, "it says that it is pretrain/000000000000"),
        (("more",), 1, "more: Extra"),
    ],
)
def test_what_does_not_fit_is_named_by_its_field(record, place, value, told):
    plain = json.loads(to_bytes(record))
    target = plain
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    with pytest.raises(ValueError, match=told):
        from_bytes(json.dumps(plain).encode(), (record.stage, record.key))


def test_a_commit_that_no_reader_would_accept_is_refused(store, tmp_path, record):
    with pytest.raises(StoreError, match=r"cannot be recorded: provenance\.finished_at"):
        store.commit(
            stage="pretrain", node="pretrain", key="0" * 64, payload={}, folder=tmp_path / "out",
            provenance={"finished_at": "yesterday"},
        )  # fmt: skip
    assert store.find("pretrain", "0" * 64) is None


def as_a(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


HARMS: dict[str, Callable[[Path], object]] = {
    **{f"bytes {data[:8]!r}": lambda path, data=data: path.write_bytes(data) for data in NOT_JSON},
    "another record": lambda path: path.write_bytes(min(path.parent.iterdir()).read_bytes()),
    "a folder's link": as_a(lambda path: path.symlink_to(path.parent)),
    "a link to itself": as_a(lambda path: path.symlink_to(path)),
    "a pipe": as_a(os.mkfifo),
}


@pytest.mark.parametrize("harm", HARMS)
def test_one_damaged_record_is_a_named_miss_and_stops_nothing(store, tmp_path, harm, caplog):
    recipe = recipes.find("toy")
    pretend_to_run(recipe, store, tmp_path)
    sound = store.records()
    bad = max((r for r in sound if r.stage == "tokenize"), key=lambda r: r.key)
    HARMS[harm](path_of(store, bad))
    assert {r.key for r in store.records()} == {r.key for r in sound} - {bad.key}
    assert store.find(bad.stage, bad.key) is None
    assert f"tokenize/{bad.key}" in caplog.text
    assert make_plan(recipe, store).by_id[bad.node].action == "run"
    assert [f.name for f in verify(store) if f.kind == "record"] == [f"records/tokenize/{bad.key}.json"]
    store.set_root("run", [(r.stage, r.key) for r in sound if r.stage == "tasks"])
    for file in Path(store.url).rglob("*"):
        os.utime(file, (0, 0), follow_symlinks=False)
    assert collect(store).kept_records == 1


def test_many_damaged_records_are_counted_and_not_all_listed(store, tmp_path, caplog):
    (tmp_path / "store" / "records" / "sft").mkdir(parents=True)
    for n in range(20):
        (tmp_path / "store" / "records" / "sft" / f"{n:064d}.json").write_text("{}")
    assert store.records() == []
    assert caplog.text.count("damaged record, treated as a miss") == 5
    assert "and 15 more damaged records" in caplog.text


def test_a_linked_folder_and_strange_files_among_blobs_are_named_and_not_fatal(store, tmp_path, record):
    blobs = tmp_path / "store" / "blobs"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ("ab" * 32)).write_text("not followed")
    (blobs / "ab").symlink_to(tmp_path / "elsewhere")
    (blobs / "cd").mkdir()
    os.mkfifo(blobs / "cd" / ("cd" * 32))
    found = {f.name: f.problem for f in verify(store)}
    assert set(found) == {"blobs/ab", f"blobs/cd/{'cd' * 32}"}
    assert "leads to another folder" in found["blobs/ab"]
    os.utime(blobs / "ab", (0, 0), follow_symlinks=False)
    os.utime(tmp_path / "elsewhere", (0, 0))
    collect(store, grace_s=60, without_roots=True)
    assert (blobs / "ab").is_symlink() and (tmp_path / "elsewhere" / ("ab" * 32)).exists()


@pytest.mark.parametrize("content", [b"{", b"null", b'{"records": [["a", "../b"]], "set_at": 0}'])
def test_a_damaged_root_is_named_and_nothing_is_collected_until_it_is_set_again(
    store, tmp_path, record, content
):
    store.set_root("mine", [(record.stage, record.key)])
    (tmp_path / "store" / "roots" / "mine.json").write_bytes(content)
    for file in Path(store.url).rglob("*"):
        os.utime(file, (0, 0))
    with pytest.raises(StoreError, match=r"roots/mine\.json") as refused:
        collect(store)
    assert "writes it anew" in str(refused.value.hint)
    assert store.find(record.stage, record.key) == record
    assert [(f.kind, f.name) for f in verify(store)] == [("root", "roots/mine.json")]
    store.set_root("mine", [(record.stage, record.key)])
    assert collect(store).kept_records == 1


@pytest.mark.parametrize("content", [b"{", b"null", b"{}"])
def test_a_damaged_lease_is_held_for_a_while_and_then_free(store, tmp_path, content, record):
    held = try_acquire(store.storage, "sft", "a" * 64, ttl_s=30)
    assert isinstance(held, Lease)
    path = tmp_path / "store" / held.info.name
    path.write_bytes(content)
    with pytest.raises(LeaseLost, match="cannot be read"):
        held.check()
    other = try_acquire(store.storage, "sft", "a" * 64, ttl_s=30)
    assert isinstance(other, LeaseInfo) and "damaged" in other.host
    assert [(f.kind, f.name) for f in verify(store)] == [("lease", held.info.name)]
    with pytest.raises(StoreError, match="nothing was removed"):
        collect(store, without_roots=True)
    long_ago = time.time() - UNREADABLE_S - 1
    os.utime(path, (long_ago, long_ago))
    collect(store, without_roots=True)
    after = try_acquire(store.storage, "sft", "a" * 64, ttl_s=30)
    assert isinstance(after, Lease)
    after.release()
    held.release()


def test_files_with_other_names_are_not_leases_roots_or_records(store, tmp_path, record):
    for name in ("leases/sft/x.json", "leases/y", "roots/.z.json", "records/sft/short.json"):
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("?")
    lease = try_acquire(store.storage, "sft", "a" * 64, ttl_s=30)
    assert isinstance(lease, Lease)
    lease.release()
    assert store.roots() == {} and store.records() == [record]
    assert {f.name for f in verify(store) if "name" in f.problem} == {
        "leases/sft/x.json", "leases/y", "roots/.z.json", "records/sft/short.json"
    }  # fmt: skip
