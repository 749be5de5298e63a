"""Files of tensors appear whole or not at all, with ordinary modes, and a refusal is the system's own."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
from pathlib import Path

import pytest
import torch

from nanochat.formats.tokenizer_pickle import write_token_bytes
from nanochat.system_errors import words
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.writing import save_tensors, save_torch, whole_file
from tests.support.limits import limited

STATE = {"weight": torch.zeros(1 << 16)}


def save_token_bytes(_: object, path: Path) -> None:
    ranks = {bytes([b]): b for b in range(256)}
    write_token_bytes(Tokenizer.from_ranks(ranks), path, "raw")


@pytest.mark.parametrize("save", [save_tensors, save_torch, save_token_bytes])
def test_a_file_that_the_system_refuses_is_named_with_the_systems_reason(save, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_bytes(b"former")
    with limited(resource.RLIMIT_FSIZE, 1024), pytest.raises(OSError, match="File too large") as refused:
        save(STATE, target)
    assert (refused.value.errno, refused.value.filename) == (errno.EFBIG, str(target))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert target.read_bytes() == b"former"


def test_the_room_on_a_full_disk_is_that_of_the_moment_it_was_full(tmp_path: Path, monkeypatch) -> None:
    usage, free = shutil.disk_usage(tmp_path), [7, 10**9]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free.pop(0)))
    with pytest.raises(OSError, match="No space left") as full, whole_file(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert f"no space left for {tmp_path / 'x'}: 7 of " in words(full.value)[0]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("save", [save_tensors, save_torch, save_token_bytes])
def test_files_have_the_mode_that_the_umask_leaves(save, umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        save(STATE, tmp_path / "model")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o666 & ~umask


def test_a_mistake_of_the_caller_stays_what_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyError), whole_file(tmp_path / "x"):
        raise KeyError("mine")
    with pytest.raises(OSError, match="No such file") as missing:
        save_tensors(STATE, tmp_path / "nowhere" / "x")
    assert missing.value.errno == errno.ENOENT


def test_a_folder_that_is_not_there_is_named_with_the_file_that_was_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "none" / "talk.json"
    with pytest.raises(OSError, match="No such file") as refused, whole_file(target):
        pass
    assert refused.value.filename == str(target)
    assert words(refused.value)[0] == f"{target}: there is no none in {tmp_path}"
