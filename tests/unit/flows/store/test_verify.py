from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.store import Store
from flows.store.fingerprint import fingerprint
from flows.store.records import record_name, to_bytes
from flows.store.verify import repair, verify


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def put(store: Store, tmp_path: Path, stage: str, key: str | None = None):
    folder = tmp_path / stage
    folder.mkdir(exist_ok=True)
    (folder / "shared.bin").write_bytes(b"shared" * 1000)
    (folder / "own.txt").write_text(stage)
    payload = {"stage": stage}
    return store.commit(
        stage=stage, node=stage, key=key or fingerprint(payload), payload=payload, folder=folder
    )


def test_a_sound_store_has_no_findings(store, tmp_path):
    for stage in ("pretrain", "sft"):
        put(store, tmp_path, stage)
    assert list(verify(store)) == []
    assert list(verify(store, ["sft"])) == []


@pytest.mark.parametrize(
    ("harm", "told"),
    [(b"shared" * 999 + b"sharee", "hash"), (b"sh", "2 bytes instead of 6000"), (None, "missing")],
)
def test_a_damaged_blob_is_named_with_all_records_that_use_it(store, tmp_path, harm, told):
    records = [put(store, tmp_path, stage) for stage in ("pretrain", "sft")]
    file = next(f for f in records[0].files if f.path == "shared.bin")
    blob = store.blob_path(file)
    blob.chmod(0o644)
    blob.unlink() if harm is None else blob.write_bytes(harm)
    (finding,) = verify(store)
    assert finding.kind == "blob" and finding.name.endswith(file.sha256)
    assert told in finding.problem and "shared.bin" in finding.problem
    assert set(finding.used_by) == {(r.stage, r.key) for r in records}
    assert [f.name for f in verify(store, ["sft"])] == [finding.name]


def test_a_record_that_does_not_parse_or_has_another_key_is_named(store, tmp_path):
    put(store, tmp_path, "pretrain", key="0" * 64)
    good = put(store, tmp_path, "sft")
    (Path(store.url) / "records" / "sft" / f"{good.key}.json").write_text("{}")
    by_name = {f.name: f for f in verify(store) if f.kind == "record"}
    assert set(by_name) == {f"records/pretrain/{'0' * 64}.json", f"records/sft/{good.key}.json"}
    assert "not to its key" in by_name[f"records/pretrain/{'0' * 64}.json"].problem


def test_bytes_that_change_once_on_their_way_here_are_not_damage(tmp_path, monkeypatch):
    store = Store.open(f"memory://{tmp_path.name}", cache=tmp_path / "cache")
    put(store, tmp_path, "sft")
    reads, hash_ = [], store.storage.hash
    monkeypatch.setattr(store.storage, "shared", True)
    monkeypatch.setattr(
        store.storage, "hash", lambda name: hash_(name) if reads.append(name) or len(reads) > 1 else (1, "0")
    )
    assert list(verify(store)) == [] and len(reads) == 3


def test_a_record_that_is_wrong_about_a_size_takes_no_sound_blob_with_it(store, tmp_path):
    good = put(store, tmp_path, "import")
    payload = {"stage": "sft"}
    shared = replace(good.files[-1], size=1)
    wrong = replace(good, stage="sft", key=fingerprint(payload), payload=payload, files=(shared,))
    store.storage.write(record_name("sft", wrong.key), to_bytes(wrong))
    (finding,) = verify(store)
    assert (finding.kind, finding.used_by) == ("record", (("sft", wrong.key),))
    assert finding.problem == "says that shared.bin has 1 bytes; it has 6000"
    repair(store, finding)
    assert list(verify(store)) == [] and store.find("import", good.key) == good


def test_a_damaged_blob_that_no_record_uses_is_named_too(store, tmp_path):
    put(store, tmp_path, "pretrain")
    stray = Path(store.url) / "blobs" / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"?")
    (finding,) = verify(store)
    assert finding.name == f"blobs/ab/{'ab' * 32}" and finding.used_by == ()
