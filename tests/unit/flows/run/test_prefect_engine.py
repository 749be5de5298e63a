"""The engine's decisions that need no Prefect server."""

from __future__ import annotations

import errno

import pytest

from flows.run.execute import refuse_other_key
from flows.run.prefect_engine import _raise_first
from nanochat.errors import ConfigError, DataError, Interrupted, StageFailed


def test_the_first_failure_is_told_with_its_stage_and_its_way_out():
    errors = {"tasks": DataError("no files", hint="give the folder"), "sft": ValueError("later")}
    with pytest.raises(StageFailed, match="stage tasks failed: no files") as failed:
        _raise_first(errors)
    assert failed.value.hint == "give the folder"


def test_being_asked_to_stop_comes_before_what_failed_because_of_it():
    with pytest.raises(Interrupted):
        _raise_first({"tasks": OSError("closed"), "sft": Interrupted("asked to stop")})


def test_a_full_disk_under_a_stage_says_what_to_do():
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StageFailed, match="stage pretrain failed: no space left") as failed:
        _raise_first({"pretrain": full})
    assert "free space" in failed.value.hint


def test_nothing_is_raised_where_nothing_failed():
    _raise_first({})


def test_a_worker_that_computes_another_key_refuses():
    refuse_other_key("a" * 64, "a" * 64, "pretrain")
    with pytest.raises(ConfigError, match=r"with key a{12}, but this worker computes b{12}"):
        refuse_other_key("a" * 64, "b" * 64, "pretrain")
