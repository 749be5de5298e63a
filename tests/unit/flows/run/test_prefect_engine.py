"""The engine's decisions that need no Prefect server."""

from __future__ import annotations

import errno
import shutil
from types import SimpleNamespace

import pytest
from prefect.states import Failed

from flows.run.execute import refuse_other_key
from flows.run.prefect_engine import Caller, _may_pass, _raise_first
from flows.stage import Stage
from nanochat.errors import (
    ConfigError,
    DataError,
    Interrupted,
    NanochatError,
    StageFailed,
    StoreUnavailable,
)


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


def test_what_ended_a_run_is_not_hidden_by_a_server_that_cannot_record_it(tmp_path, monkeypatch):
    settings = SimpleNamespace(store_url="memory://", home=tmp_path)
    caller = Caller(SimpleNamespace(recipe=None), None, settings, None)

    def failing_flow(**_):
        try:
            raise StageFailed("stage sft failed: no space left", hint="free space")
        except StageFailed:
            raise RuntimeError("500 Internal Server Error") from None

    with pytest.raises(StageFailed, match="stage sft failed") as failed:
        caller.run(failing_flow)
    assert failed.value.hint == "free space"

    def failing_server(**_):
        raise RuntimeError("500 Internal Server Error")

    with pytest.raises(RuntimeError, match="500"):
        caller.run(failing_server)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4096))
    with pytest.raises(NanochatError, match=r"cannot record the run: no space left .* 4,096 of"):
        caller.run(failing_server)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StoreUnavailable("no answer"), True),
        (OSError(errno.ESTALE, "a network file system went away"), True),
        (DataError("not parquet"), False),
        (Interrupted("asked to stop"), False),
    ],
    ids=repr,
)
def test_a_stage_is_tried_again_after_a_fault_that_may_pass(error, again):
    assert _may_pass(Stage(name="s", version=1, run="m:f"), None, None, Failed(data=error)) is again


def test_nothing_is_raised_where_nothing_failed():
    _raise_first({})


def test_a_worker_that_computes_another_key_refuses():
    refuse_other_key("a" * 64, "a" * 64, "pretrain")
    with pytest.raises(ConfigError, match=r"with key a{12}, but this worker computes b{12}"):
        refuse_other_key("a" * 64, "b" * 64, "pretrain")


def test_a_stage_is_tried_again_after_the_errors_that_it_declares():
    stage = Stage(name="s", version=1, run="m:f", retry_after=lambda error: isinstance(error, ValueError))
    found = [_may_pass(stage, None, None, Failed(data=e)) for e in (ValueError("x"), StoreUnavailable("x"))]
    assert found == [True, False]
