"""Records found with few reads: what is looked at, in which order, and when a copy may stand in."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from flows.store import ArtifactFile, Record, Store
from flows.store.catalog import Catalog
from flows.store.fingerprint import fingerprint
from flows.store.lineage import lineage
from flows.store.records import record_name, to_bytes

FILES = (ArtifactFile("model", 1, "0" * 64),)


def record(stage: str, n: int, *made_from: Record, **more) -> Record:
    payload = {"stage": stage, "n": n}
    lines = [{"stage": r.stage, "node": r.node, "key": r.key, "digest": r.digest} for r in made_from]
    return Record(
        stage=stage, node=f"{stage}/{n:05d}", key=fingerprint(payload), payload=payload, files=FILES,
        inputs={"parts": lines} if lines else {}, **more,
    )  # fmt: skip


def put(store: Store, *records: Record) -> None:
    for each in records:
        store.storage.write(record_name(each.stage, each.key), to_bytes(each))


class Remote:
    """A memory store that counts its reads and has ETags, as an S3 service has."""

    def __init__(self, name, cache, monkeypatch):
        self.store = Store.open(f"memory://{name}", cache=cache)
        storage = self.store.storage
        storage.shared, self.reads = True, 0
        read, listing = storage._read, storage._listing

        def counted(name):
            self.reads += 1
            return read(name)

        def with_etags(prefix):
            listed = listing(prefix).items()
            return {name: replace(found, etag=sha256(read(name)).hexdigest()) for name, found in listed}

        monkeypatch.setattr(storage, "_read", counted)
        monkeypatch.setattr(storage, "_listing", with_etags)
        self.catalog = Catalog(storage, cache)

    def load(self):
        """Return all records and how many were read from the storage for it."""
        listed, before = self.catalog.listed(), self.reads
        return self.catalog.load_all(listed, listed), self.reads - before


@pytest.fixture
def remote(tmp_path, monkeypatch):
    return Remote(tmp_path.name, tmp_path / "cache", monkeypatch)


def test_what_a_listing_shows_unchanged_is_read_once_and_what_was_replaced_again(remote):
    first, second = record("sft", 1), record("sft", 2)
    put(remote.store, first, second)
    both = {(r.stage, r.key): r for r in (first, second)}
    assert remote.load() == (both, 2)
    assert remote.load() == (both, 0)
    again = replace(second, metrics={"val/loss": 1.0})
    put(remote.store, again)
    assert remote.load() == (both | {("sft", second.key): again}, 1)
    remote.store.storage.delete(record_name("sft", first.key))
    assert remote.load() == ({("sft", second.key): again}, 0)


def test_a_damaged_copy_is_read_again_and_a_damaged_record_has_none(remote, tmp_path):
    good, bad = record("sft", 1), record("sft", 2)
    put(remote.store, good)
    remote.store.storage.write(record_name("sft", bad.key), b"{}")
    one = {("sft", good.key): good}
    assert remote.load()[0] == one
    (copy,) = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    copy.write_bytes(copy.read_bytes()[:-20])
    found, reads = remote.load()
    assert found == one and reads > 1
    assert remote.load()[1] == reads - 1


def test_without_room_for_copies_records_are_read_from_the_store(remote, tmp_path):
    (tmp_path / "cache").write_text("a file in the place of the folder")
    put(remote.store, record("sft", 1))
    assert [remote.load()[1] for _ in range(2)] == [1, 1]


def test_a_stage_of_thousands_is_read_from_its_new_end(remote):
    records = [record("sft", n) for n in range(50)]
    put(remote.store, *records)
    assert remote.catalog.resolve("sft") == records[-1]
    assert remote.reads == 16
    assert remote.catalog.resolve(f"sft/{records[7].key[:12]}") == records[7]
    assert remote.reads == 17
    assert remote.catalog.resolve("sft/00020") == records[20]
    assert remote.reads <= 17 + 32


def test_a_long_lineage_is_followed_to_the_first_few_of_each_input(remote):
    texts = [record("download", n) for n in range(9)]
    tokens = [record("tokenize", n, text) for n, text in enumerate(texts)]
    model = record("pretrain", 0, *tokens)
    put(remote.store, *texts, *tokens, model)
    assert lineage(remote.store, model, at_most=2) == [*tokens[:2], *texts[:2]]
    assert remote.reads == 4
    assert len(lineage(remote.store, model)) == 18
