"""A store behind a connection that fails one call in ten: right bytes or a clear error, never wrong bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from flows.store import Store
from flows.store.fingerprint import fingerprint
from flows.store.leases import Lease
from flows.store.storage.retry import Retry
from flows.store.verify import verify
from nanochat.errors import Damaged, StoreError
from tests.support import faulty_fs

faulty_fs.register()
_FILES = {"a.bin": bytes(range(256)) * 40, "sub/b.txt": b"text", "empty": b""}


def _open(tmp_path: Path, *, rate: float, seed: int, attempts: int = 6) -> Store:
    return Store.open(
        f"faulty://{tmp_path}/store",
        storage_options={"rate": rate, "seed": seed},
        cache=tmp_path / f"cache{seed}",
        retry=Retry(attempts=attempts, first_wait_s=0.0001, longest_wait_s=0.001),
    )


def _make(store: Store, tmp_path: Path, n: int):
    payload = {"stage": "pretrain", "n": n}
    folder = tmp_path / f"out{n}"
    for name, data in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data + str(n).encode())
    held = store.acquire("pretrain", fingerprint(payload), poll_s=0.001)
    assert isinstance(held, Lease)
    with held as lease:
        points = store.restart_points("pretrain", fingerprint(payload), lease)
        points.save(1, folder)
        step, back = points.latest() or (0, folder)
        assert step in (0, 1) and (back / "a.bin").read_bytes() == (folder / "a.bin").read_bytes()
        return store.commit(
            stage="pretrain", node="pretrain", key=fingerprint(payload), payload=payload, folder=folder,
            lease=lease,
        )  # fmt: skip


def _assert_whole(store: Store, tmp_path: Path, record, n: int) -> None:
    folder = store.fetch(record, tmp_path / f"in{n}")
    for name, data in _FILES.items():
        assert (folder / name).read_bytes() == data + str(n).encode()


def test_one_call_in_ten_failing_is_survived(tmp_path):
    store = _open(tmp_path, rate=0.1, seed=1)
    for n in range(10):
        record = _make(store, tmp_path, n)
        assert store.find("pretrain", record.key) == record
        _assert_whole(store, tmp_path, record, n)
    assert store.storage.fs.faults > 30, "the test must have injected faults"
    calm = _open(tmp_path, rate=0, seed=0)
    assert list(verify(calm)) == []
    assert len(calm.records()) == 10 and not calm.storage.listing("leases")


@pytest.mark.parametrize("seed", range(12))
def test_whatever_fails_nothing_wrong_is_committed(tmp_path, seed):
    """Half of all calls fail and are tried only twice, so that many operations give up midway."""
    rate = random.Random(seed).choice([0.2, 0.35, 0.5])
    errors = done = 0
    for n in range(6):
        store = _open(tmp_path, rate=0, seed=seed, attempts=2)
        store.prove()
        store.storage.fs.rate = rate
        try:
            record = _make(store, tmp_path, n)
            _assert_whole(store, tmp_path, record, n)
            done += 1
        except StoreError as error:
            assert str(error)
            errors += 1
    assert errors, "the test must have made operations give up"
    calm = _open(tmp_path, rate=0, seed=99)
    assert [f for f in verify(calm) if f.used_by] == []
    for record in calm.records():
        _assert_whole(calm, tmp_path / "calm", record, record.payload["n"])
    assert len(calm.records()) >= done


def test_a_download_that_stays_damaged_is_refused(tmp_path):
    store = _open(tmp_path, rate=0, seed=3, attempts=3)
    record = _make(store, tmp_path, 0)
    blob = tmp_path / "store" / "blobs" / record.files[0].sha256[:2] / record.files[0].sha256
    blob.write_bytes(b"x" * record.files[0].size)
    fresh = Store(store.storage, tmp_path / "fresh")
    with pytest.raises(Damaged, match="hash"):
        fresh.fetch(record, tmp_path / "in")
    assert not list((tmp_path / "fresh").rglob("*.part"))
    assert not (tmp_path / "in" / record.files[0].path).exists()


def test_a_service_that_ignores_conditions_is_refused(tmp_path, monkeypatch):
    store = _open(tmp_path, rate=0, seed=4)
    monkeypatch.setattr(
        type(store.storage.fs), "pipe_file", lambda self, path, value, **_: Path(path).write_bytes(value)
    )
    (tmp_path / "store" / "probe").mkdir(parents=True)
    with pytest.raises(StoreError, match="conditional writes"):
        store.acquire("pretrain", "a" * 64)
