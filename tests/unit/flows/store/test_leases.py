"""Who may make an artifact: agreement between threads, processes and machines that come and go."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time

import pytest

from flows.store import Store, roots
from flows.store.fingerprint import fingerprint
from flows.store.leases import Lease, LeaseInfo, all_leases, current, try_acquire
from flows.store.records import root_name
from flows.store.storage.base import Storage
from flows.store.storage.open import open_storage
from flows.store.storage.retry import Retry
from nanochat.errors import LeaseLost
from tests.support.store_worker import outcome, spawn, until


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path) -> Storage:
    url = str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path.name}"
    return open_storage(url, {}, Retry(attempts=2, first_wait_s=0.001))


def acquire(storage, **kwargs) -> Lease:
    lease = try_acquire(storage, "pretrain", "a" * 64, **{"ttl_s": 30, **kwargs})
    assert isinstance(lease, Lease)
    return lease


def as_left_by_another_machine(storage: Storage, lease: Lease, *, expired: bool) -> None:
    """Rewrite the lease file as that of a holder elsewhere."""
    lease._released.set()  # it renews no more
    lease._thread.join()
    expires = time.time() + (-1 if expired else 60)
    info = dataclasses.replace(lease.info, host="elsewhere", pid=1, expires=expires)
    storage.write(info.name, info.to_bytes())
    lease._released.clear()


def test_one_lease_at_a_time_and_the_next_after_its_release(storage):
    with acquire(storage, needs=(("tokenize", "d" * 64),)) as lease:
        held = try_acquire(storage, "pretrain", "a" * 64, ttl_s=30)
        assert isinstance(held, LeaseInfo) and held == lease.info and held.needs == (("tokenize", "d" * 64),)
        assert all_leases(storage) == [lease.info]
        with acquire_other(storage):
            pass
    with acquire(storage):
        pass
    assert all_leases(storage) == []


def test_what_dead_holders_left_is_swept_and_what_the_living_hold_stays(storage, tmp_path):
    elsewhere, gone = acquire(storage), acquire_other(storage)
    as_left_by_another_machine(storage, elsewhere, expired=False)
    as_left_by_another_machine(storage, gone, expired=True)
    process = 2**22 + 1  # above the largest process id
    roots.set_root(storage, "toy-publish", [("pretrain", "a" * 64)])
    with roots.Hold(storage, "alive") as alive, roots.Hold(storage, "dead") as dead:
        for hold in (alive, dead):
            hold.add([("pretrain", "a" * 64)])
        ended = roots.read_roots(storage)[dead.name].root.model_copy(update={"pid": process})
        storage.write(root_name(dead.name), ended.to_bytes())
        Store(storage, tmp_path / "cache").sweep()
        assert set(roots.read_roots(storage)) == {"toy-publish", alive.name}
    assert [info.key for info in all_leases(storage)] == ["a" * 64]


def acquire_other(storage) -> Lease:
    lease = try_acquire(storage, "pretrain", "b" * 64, ttl_s=30)
    assert isinstance(lease, Lease), "another key is free"
    return lease


def test_a_lease_of_another_machine_is_respected_until_it_expires(storage):
    lease = acquire(storage)
    as_left_by_another_machine(storage, lease, expired=False)
    assert isinstance(try_acquire(storage, "pretrain", "a" * 64, ttl_s=30), LeaseInfo)
    as_left_by_another_machine(storage, lease, expired=True)
    with acquire(storage) as next_one:
        assert next_one.fence == lease.fence + 1
        with pytest.raises(LeaseLost, match="took over"):
            lease.check()
        next_one.check()
    lease.release()


def test_a_holder_that_slept_through_its_successor_learns_of_it(storage):
    lease = acquire(storage)
    as_left_by_another_machine(storage, lease, expired=True)
    with acquire(storage):
        pass  # done and gone: neither a higher number nor the old file is left
    with pytest.raises(LeaseLost):
        lease.check()
    assert lease.lost.is_set()
    lease.release()


def test_the_heartbeat_renews_and_tells_of_a_loss(storage):
    told = threading.Event()
    with acquire(storage, ttl_s=0.15, on_lost=told.set) as lease:
        first = current(storage, "pretrain", "a" * 64).expires
        while current(storage, "pretrain", "a" * 64).expires <= first:
            time.sleep(0.01)
        taken = dataclasses.replace(lease.info, holder="another", fence=lease.fence + 1)
        storage.write(taken.name, taken.to_bytes())
        assert told.wait(10) and lease.lost.is_set()


def test_release_stops_the_heartbeat_before_the_file_goes(storage):
    for _ in range(20):
        acquire(storage, ttl_s=0.003).release()
    assert all_leases(storage) == []


def test_a_released_lease_publishes_nothing(storage):
    lease = acquire(storage)
    lease.release()
    with pytest.raises(LeaseLost, match="released"):
        lease.check()


def test_many_threads_race_and_one_wins(storage):
    for _ in range(10):
        start = threading.Barrier(8)
        got: list[Lease | LeaseInfo] = []

        def race(start=start, got=got) -> None:
            start.wait()
            got.append(try_acquire(storage, "pretrain", "c" * 64, ttl_s=30))

        threads = [threading.Thread(target=race) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [lease for lease in got if isinstance(lease, Lease)]
        assert len(winners) == 1
        winners[0].check()
        winners[0].release()


def test_a_later_process_with_the_same_id_does_not_keep_a_lease_alive(storage):
    lease = acquire(storage)
    assert lease.info.live
    assert not dataclasses.replace(lease.info, started=lease.info.started - 100).live
    lease.release()


def test_runs_that_share_all_their_stages_make_each_of_them_once(tmp_path):
    made: list[str] = []

    def run(name: str) -> None:
        store = Store.open(str(tmp_path / "store"))
        for n in range(15):
            key = fingerprint(n)
            held = store.acquire("tokenize", key, poll_s=0.001)
            if not isinstance(held, Lease):
                continue
            with held as lease:
                made.append(key)
                out = tmp_path / f"{name} {n}"
                out.mkdir()
                (out / "file").write_text(str(n))
                store.commit(stage="tokenize", node="t", key=key, payload={}, folder=out, lease=lease)

    threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == sorted(fingerprint(n) for n in range(15))


def test_processes_racing_for_one_key_make_it_once(tmp_path):
    workers = [spawn(str(tmp_path), work_s=0.2) for _ in range(4)]
    results = [outcome(worker) for worker in workers]
    assert sorted(r["did"] for r in results) == ["hit", "hit", "hit", "made"]
    assert len({r["digest"] for r in results}) == 1


def test_a_killed_holder_on_this_machine_is_taken_over_at_once(tmp_path):
    holder = spawn(str(tmp_path), ask=True, ttl_s=3600)
    until(holder, "working")
    waiter = spawn(str(tmp_path), ttl_s=3600)
    until(waiter, "waiting")
    holder.kill()
    result = outcome(waiter)  # long before the hour is over
    holder.communicate()
    assert result["did"] == "made" and result["fence"] == 2


def test_a_holder_that_was_stopped_past_its_time_publishes_nothing(tmp_path):
    holder = spawn(str(tmp_path), ask=True, ttl_s=1.0, text="late")
    until(holder, "working")
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        other = outcome(spawn(str(tmp_path), text="in time"))
    finally:
        os.kill(holder.pid, signal.SIGCONT)
    assert other["did"] == "made"
    assert outcome(holder)["did"] == "lost"
    records = Store.open(str(tmp_path)).records("pretrain")
    assert [r.digest for r in records] == [other["digest"]]
