"""The store on a real S3 server: agreement, outages, wrong addresses and keys."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from flows.store import Store
from flows.store.fingerprint import fingerprint
from flows.store.gc import collect
from flows.store.leases import Lease, LeaseInfo, try_acquire
from flows.store.storage import s3 as storage_s3
from flows.store.storage.retry import Retry
from flows.store.verify import verify
from nanochat.errors import LeaseLost, StoreUnavailable
from tests.support.requests_sent import counted_requests
from tests.support.store_worker import outcome, spawn, until

QUICK = Retry(attempts=2, first_wait_s=0.01)
SHORT = {"config_kwargs": {"read_timeout": 0.4, "connect_timeout": 0.4}}


@pytest.fixture
def store(s3_store_url, tmp_path) -> Store:
    return Store.open(s3_store_url, cache=tmp_path / "cache")


@pytest.fixture
def folder(tmp_path) -> Path:
    out = tmp_path / "out"
    (out / "part").mkdir(parents=True)
    (out / "model.bin").write_bytes(bytes(range(256)) * 4000)
    (out / "part" / "empty.txt").write_bytes(b"")
    return out


def put(store: Store, folder: Path, n=1, **kwargs):
    payload = {"stage": "pretrain", "n": n}
    return store.commit(
        stage="pretrain", node="pretrain", key=fingerprint(payload), payload=payload, folder=folder, **kwargs
    )


def test_a_stage_is_made_found_fetched_verified_and_collected(store, folder, tmp_path):
    key = fingerprint({"stage": "pretrain", "n": 1})
    assert store.find("pretrain", key) is None
    with store.acquire("pretrain", key) as lease:
        points = store.restart_points("pretrain", key, lease)
        points.save(7, folder)
        step, back = points.latest()
        assert step == 7 and (back / "model.bin").read_bytes() == (folder / "model.bin").read_bytes()
        record = put(store, folder, lease=lease)
        store.drop_restart_points("pretrain", key)
    assert store.acquire("pretrain", key) == record == store.resolve("pretrain")
    assert store.find_many([("pretrain", key), ("pretrain", "0" * 64)]) == {("pretrain", key): record}
    got = store.fetch(record, tmp_path / "in")
    assert (got / "model.bin").read_bytes() == (folder / "model.bin").read_bytes()
    assert (got / "part" / "empty.txt").read_bytes() == b""
    assert list(verify(store)) == []
    other = put(store, folder / "part", n=2)
    store.set_root("run", [("pretrain", key)])
    assert collect(store, grace_s=-60).records == (("pretrain", other.key),)
    assert store.find("pretrain", key) == record
    assert set(store.storage.listing("blobs")) == {f"blobs/{f.sha256[:2]}/{f.sha256}" for f in record.files}


def test_many_blobs_are_looked_up_by_listing(store, folder, monkeypatch):
    record = put(store, folder)
    monkeypatch.setattr("flows.store.blobs._STAT_AT_MOST", 0)
    assert store.find("pretrain", record.key) == record
    store.storage.delete(f"blobs/{record.files[0].sha256[:2]}/{record.files[0].sha256}")
    assert store.find("pretrain", record.key) is None


def test_a_record_costs_one_request_then_none_and_a_listing_one_for_each_page(store, folder, monkeypatch):
    records = {(r.stage, r.key): r for r in (put(store, folder, n=n) for n in range(3))}
    call = store.storage.fs.call_s3  # pages of two, so that there are several
    small = lambda method, **given: call(method, **given, **({"MaxKeys": 2} if "list" in method else {}))  # noqa: E731
    monkeypatch.setattr(store.storage.fs, "call_s3", small)
    with counted_requests() as sent:
        listed = store.catalog.listed("pretrain")
        assert store.catalog.load_all(listed, listed) == records
    assert sent == ["GET"] * (2 + 3)
    with counted_requests() as sent:
        listed = store.catalog.listed()
        assert store.catalog.load_all(listed, listed) == records
    assert sent == ["GET"] * 2


def test_a_large_file_goes_in_parts_and_comes_back_whole(store, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_s3, "_MULTIPART_BYTES", 5 << 20)
    out = tmp_path / "large"
    out.mkdir()
    (out / "model.bin").write_bytes(bytes(range(251)) * (12 << 12))
    record = put(store, out)
    got = store.fetch(record, tmp_path / "in")
    assert (got / "model.bin").read_bytes() == (out / "model.bin").read_bytes()


def test_only_one_of_many_creators_succeeds(store):
    start = threading.Barrier(8)
    results: list[bool] = []

    def create(n: int) -> None:
        start.wait()
        results.append(store.storage.create("probe/raced", f"creator {n}".encode()))

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]


def test_a_lease_is_held_by_one_and_lost_to_its_successor(store):
    lease = try_acquire(store.storage, "pretrain", "a" * 64, ttl_s=30)
    assert isinstance(lease, Lease)
    assert isinstance(try_acquire(store.storage, "pretrain", "a" * 64, ttl_s=30), LeaseInfo)
    lease.check()
    store.storage.write(f"leases/pretrain/{'a' * 64}.2.json", lease.info.to_bytes())
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()


def test_processes_racing_for_one_key_make_it_once_and_a_killed_one_is_taken_over(s3_store_url):
    holder = spawn(s3_store_url, ask=True)
    until(holder, "working")
    waiters = [spawn(s3_store_url) for _ in range(2)]
    for waiter in waiters:
        until(waiter, "waiting")
    holder.kill()
    results = [outcome(waiter) for waiter in waiters]
    holder.communicate()
    assert sorted(r["did"] for r in results) == ["hit", "made"]


def test_a_server_that_hangs_is_an_outage_and_never_a_miss(s3_server, s3_store_url, folder, tmp_path):
    store = Store.open(s3_store_url, storage_options=SHORT, cache=tmp_path / "cache")
    record = put(store, folder)
    store.storage.retry = QUICK
    s3_server.freeze()
    try:
        for ask in (
            lambda: store.find("pretrain", record.key),
            lambda: store.find_many([("pretrain", record.key)]),
            lambda: store.fetch(record, tmp_path / "in"),
            lambda: put(store, folder, n=2),
        ):
            with pytest.raises(StoreUnavailable):
                ask()
    finally:
        s3_server.thaw()
    store.storage.retry = Retry()
    assert store.find("pretrain", record.key) == record


def test_a_server_that_hangs_for_a_moment_is_waited_for(s3_server, s3_store_url, folder, tmp_path):
    store = Store.open(s3_store_url, storage_options=SHORT, cache=tmp_path / "cache")
    record = put(store, folder)
    s3_server.freeze()
    timer = threading.Timer(1.0, s3_server.thaw)
    timer.start()
    try:
        assert store.find("pretrain", record.key) == record
    finally:
        timer.join()


def test_nobody_listening_is_an_outage(s3_store_url, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(StoreUnavailable) as outage:
            Store.open(s3_store_url, retry=QUICK)
    assert "endpoint" in str(outage.value.hint)


def test_a_missing_bucket_is_no_empty_store(s3_store_url):
    with pytest.raises(StoreUnavailable, match="bucket 'nosuch' does not exist"):
        Store.open("s3://nosuch/prefix")


def test_a_bucket_that_vanishes_is_an_outage_and_never_a_miss(s3_store_url, folder, tmp_path):
    fs = Store.open(s3_store_url).storage.fs
    fs.call_s3("create_bucket", Bucket="vanishing")
    store = Store.open("s3://vanishing", cache=tmp_path / "cache", retry=QUICK)
    record = put(store, folder)
    store.storage.delete(*store.storage.listing("records"), *store.storage.listing("blobs"))
    fs.call_s3("delete_bucket", Bucket="vanishing")
    for ask in (store.find, lambda *ref: store.find_many([ref]), lambda *_: store.records()):
        with pytest.raises(StoreUnavailable, match="bucket does not exist"):
            ask("pretrain", record.key)


def test_wrong_keys_are_told_with_the_variables_to_set(s3_store_url, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreUnavailable, match="credentials were refused") as refused:
        Store.open(s3_store_url)
    assert "AWS_SECRET_ACCESS_KEY" in str(refused.value.hint)
