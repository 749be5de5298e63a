"""Local folders: those of the dead go, those of the living stay, and nobody takes a folder from another."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest

from flows.run.scratch import drop_own_folders, drop_partial, partial_folder, scratch_folder, sweep

HOLDER = """
import sys
from pathlib import Path
from flows.run.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("x")
    print("ready", flush=True)
    sys.stdin.read()
"""


def names(root):
    return [p.name for p in root.iterdir()]


def test_folders_of_killed_processes_are_swept_and_those_in_use_are_not(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "ready\n"
        with scratch_folder(tmp_path) as mine:
            (mine / "file").write_text("x")
            sweep(tmp_path)
            assert (mine / "file").exists()
            assert len(names(tmp_path)) == 2
        other.kill()
    assert len(names(tmp_path)) == 1
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_a_sweep_at_any_moment_takes_no_folder_from_who_begins(tmp_path):
    done = threading.Event()

    def sweep_on():
        while not done.is_set():
            sweep(tmp_path)

    sweeper = threading.Thread(target=sweep_on)
    sweeper.start()
    try:
        for _ in range(300):
            with scratch_folder(tmp_path) as folder:
                (folder / "file").write_text("x")
    finally:
        done.set()
        sweeper.join()
    assert names(tmp_path) == []


def test_a_folder_of_a_users_own_that_is_called_scratch_stays_as_it_is(tmp_path):
    files = [tmp_path / name for name in ("thesis/chapter", "2026-data/run", "12345678-x/y", "notes")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    (tmp_path / "123-leftover").mkdir()
    sweep(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(files)
    assert not (tmp_path / "123-leftover").exists()


def test_unfinished_downloads_outlive_a_sweep_and_go_with_their_stage(tmp_path):
    for key in ("one", "two"):
        partial_folder(tmp_path, key).mkdir(parents=True)
    sweep(tmp_path)
    drop_partial(tmp_path, "one")
    drop_partial(tmp_path, "never seen")
    assert [partial_folder(tmp_path, key).exists() for key in ("one", "two")] == [False, True]


def test_a_process_that_ends_at_once_takes_its_own_folders_along(tmp_path):
    here, other = tmp_path / "here", tmp_path / "other"
    with scratch_folder(here) as mine, scratch_folder(other) as elsewhere:
        (mine / "file").write_text("x")
        partial_folder(here, "one").mkdir()
        drop_own_folders(here)
        assert names(here) == ["partial-one"] and elsewhere.exists()


def test_without_locks_nothing_is_swept_and_work_goes_on(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / "123-leftover").mkdir()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with scratch_folder(tmp_path) as folder:
        sweep(tmp_path)
        assert sorted(names(tmp_path)) == sorted(["123-leftover", folder.name])
    assert names(tmp_path) == ["123-leftover"]


def test_a_folder_that_cannot_be_locked_for_another_reason_is_an_error_and_no_endless_loop(
    tmp_path, monkeypatch
):
    (tmp_path / "123-leftover").mkdir()

    def refuse(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", refuse)
    sweep(tmp_path)
    with pytest.raises(OSError, match="No space"), scratch_folder(tmp_path):
        pytest.fail("there is no room")


def test_a_home_without_a_scratch_folder_has_nothing_to_sweep(tmp_path):
    sweep(tmp_path / "none")
    assert names(tmp_path) == []
