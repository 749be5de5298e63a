from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flows.store import Store
from flows.store.storage.retry import Retry
from nanochat.errors import LeaseLost


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path) -> Store:
    url = str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path.name}"
    return Store.open(url, cache=tmp_path / "cache", retry=Retry(attempts=2, first_wait_s=0.001))


def state(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "state" / text
    (folder / "rank").mkdir(parents=True)
    (folder / "model.bin").write_text(text * 100)
    (folder / "rank" / "rng.bin").write_text(text)
    return folder


def test_the_newest_point_comes_back_whole(store, tmp_path):
    points = store.restart_points("pretrain", "a" * 64)
    assert points.latest() is None and points.step() == -1
    points.save(9, state(tmp_path, "nine"))
    points.save(10, state(tmp_path, "ten"))
    step, folder = points.latest()
    assert step == 10 == points.step()
    assert (folder / "model.bin").read_text() == "ten" * 100
    assert (folder / "rank" / "rng.bin").read_text() == "ten"


def test_the_last_two_are_kept(store, tmp_path):
    points = store.restart_points("pretrain", "a" * 64)
    for step in (1, 2, 3, 4):
        points.save(step, state(tmp_path, f"s{step}"))
    assert sorted({name.split("/")[3].split("-")[0] for name in store.storage.listing("resume")}) == [
        "00000003",
        "00000004",
    ]


@pytest.mark.parametrize("harm", ["bytes", "file", "manifest"])
def test_a_damaged_point_is_passed_over_for_the_one_before(tmp_path, harm, caplog):
    store = Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    points = store.restart_points("pretrain", "a" * 64)
    points.save(1, state(tmp_path, "one"))
    points.save(2, state(tmp_path, "two"))
    (bad,) = (tmp_path / "store" / "resume").rglob("00000002-*")
    target = bad / "manifest.json" if harm == "manifest" else bad / "files" / "model.bin"
    target.chmod(0o644)
    if harm == "file":
        target.unlink()
    else:
        target.write_bytes(target.read_bytes()[:-1] + b"?")
    with caplog.at_level(logging.WARNING):
        step, folder = points.latest()
    assert step == 1 and (folder / "model.bin").read_text() == "one" * 100
    assert "restart point skipped" in caplog.text


def test_damaged_points_of_later_steps_do_not_push_out_what_is_saved_after_them(store, tmp_path):
    points = store.restart_points("pretrain", "a" * 64)
    for step in (50, 100):
        points.save(step, state(tmp_path, f"{step}"))
    for name in store.storage.listing(points.prefix):
        if name.endswith("model.bin"):
            store.storage.delete(name)
    assert points.latest() is None
    points.save(7, state(tmp_path, "seven"))
    step, folder = points.latest()
    assert step == points.step() == 7
    assert (folder / "model.bin").read_text() == "seven" * 100


def test_a_point_without_its_manifest_does_not_exist(store, tmp_path):
    points = store.restart_points("pretrain", "a" * 64)
    points.save(1, state(tmp_path, "one"))
    (manifest,) = [n for n in store.storage.listing("resume") if n.endswith("manifest.json")]
    store.storage.delete(manifest)
    assert points.latest() is None


def test_a_holder_that_lost_its_lease_leaves_no_point(store, tmp_path):
    lease = store.acquire("pretrain", "a" * 64)
    points = store.restart_points("pretrain", "a" * 64, lease)
    points.save(1, state(tmp_path, "one"))
    store.storage.delete(lease.info.name)
    with pytest.raises(LeaseLost):
        points.save(2, state(tmp_path, "two"))
    lease.release()
    assert store.restart_points("pretrain", "a" * 64).latest()[0] == 1


def test_dropping_leaves_nothing_and_touches_no_other_key(store, tmp_path):
    for key in ("a" * 64, "b" * 64):
        store.restart_points("pretrain", key).save(1, state(tmp_path, key))
    store.drop_restart_points("pretrain", "a" * 64)
    assert store.restart_points("pretrain", "a" * 64).latest() is None
    assert store.restart_points("pretrain", "b" * 64).latest() is not None
