"""A folder as a store: nothing half-written stays behind, and nobody's work is taken for left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flows.store.storage.local import LocalStorage
from flows.store.storage.open import open_storage
from flows.store.storage.retry import Retry


@pytest.fixture
def storage(tmp_path) -> LocalStorage:
    opened = open_storage(str(tmp_path / "store"), {}, Retry(attempts=1, first_wait_s=0))
    assert isinstance(opened, LocalStorage)
    return opened


def test_a_sweep_takes_what_a_killed_process_left_and_not_what_is_being_written(storage):
    left = Path(storage.root, "parts", "0" * 32)
    left.parent.mkdir(parents=True)
    left.write_text("half")
    users = left.with_name("wheel.step")
    users.write_text("a part of something else")
    with storage._part("blobs/aa/new") as part:
        part.write(b"whole")
        storage.sweep()
        assert not left.exists() and part.path.exists()
        part.publish()
    assert storage.read("blobs/aa/new") == b"whole"
    assert users.read_text() == "a part of something else"
    users.unlink()
    storage.sweep()
    assert not left.parent.exists()
    storage.sweep()  # nothing there


def test_writers_survive_sweeps_at_any_moment_and_leave_no_folder_for_parts(storage):
    done = threading.Event()

    def sweep_on() -> None:
        while not done.wait(0.0002):  # without a pause it would keep the interpreter to itself
            storage.sweep()

    sweeper = threading.Thread(target=sweep_on)
    sweeper.start()
    try:
        for number in range(60):
            storage.write(f"roots/{number}", b"%d" % number)
            assert storage.create(f"leases/{number}", b"x")
    finally:
        done.set()
        sweeper.join()
    assert [storage.read(f"roots/{number}") for number in range(60)] == [b"%d" % n for n in range(60)]
    assert not Path(storage.root, "parts").exists()


def test_empty_folders_of_restart_points_go_with_their_files_and_others_stay(storage):
    names = [
        "resume/pretrain/k/1/files/a",
        "resume/pretrain/k/1/manifest.json",
        "resume/sft/k/2/manifest.json",
    ]
    for name in (*names, "blobs/aa/x"):
        storage.write(name, b"x")
    storage.delete(*names[:2], "blobs/aa/x")
    root = Path(storage.root)
    assert sorted(p.name for p in (root / "resume").iterdir()) == ["sft"]
    assert (root / "blobs" / "aa").is_dir()
    storage.delete(names[2])
    assert not (root / "resume").exists()
