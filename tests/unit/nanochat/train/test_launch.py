"""Ranks under torchrun: their messages arrive; they end when they fail, are to stop or lose their parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from nanochat.config import ModelConfig, PretrainConfig, TokenizeConfig
from nanochat.errors import DataError, Interrupted, NanochatError, RankKilled
from nanochat.model import reproducible
from nanochat.ranks import worker
from nanochat.ranks.agent import AGENT_PID
from nanochat.ranks.launch import _failure, killed, launch, leave_error
from nanochat.runtime import FolderRestartPoints, Runtime
from nanochat.tracking import MemoryTracker
from nanochat.train.pretrain import pretrain

PRETRAIN = PretrainConfig(
    model=ModelConfig(sequence_len=48, vocab_size=265, n_layer=1, n_head=2, n_kv_head=1, n_embd=32),
    batch_tokens=240,  # 5 rows
    steps=40,
    eval_every=10,
    eval_tokens=500,
    sample_every=20,
    prompts=("red é",),
)
PARENT = """
import sys
from pathlib import Path
from nanochat.config import TokenizeConfig
from nanochat.runtime import Runtime
from nanochat.ranks.launch import _failure, killed, launch, leave_error

runtime = Runtime(processes=2)
launch("tests.support.launched:wait_for_a_stop", TokenizeConfig(), {}, Path(sys.argv[1]), runtime)
"""


class StopAt(MemoryTracker):
    """Asks the run to stop once a step was logged."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step, self.stop = step, threading.Event()

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        super().log(metrics, step=step, total_steps=total_steps)
        if step == self.step:
            self.stop.set()


@pytest.fixture
def inputs(stage_inputs: Path) -> dict[str, Path]:
    return {name: stage_inputs / name for name in ("tokenizer", "train_tokens", "val_tokens")}


@pytest.mark.slow  # starts three interpreters with torch
def test_one_process_goes_on_as_two_and_two_as_one(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("whole", "out"):
        (tmp_path / name).mkdir()
    whole = MemoryTracker()
    pretrain(PRETRAIN, inputs, tmp_path / "whole", Runtime(threads=1, tracker=whole))
    keep = FolderRestartPoints(tmp_path / "restart")

    def runtime(tracker: StopAt, processes: int) -> Runtime:
        return Runtime(
            threads=processes,
            processes=processes,
            tracker=tracker,
            stop=tracker.stop,
            restart_points=keep,
            restart_point_every_s=0.01,
            scratch=tmp_path,
        )

    first, second, third = StopAt(3), StopAt(6), StopAt(0)
    with pytest.raises(Interrupted, match="step 3 is kept"):
        pretrain(PRETRAIN, inputs, tmp_path / "out", runtime(first, 1))
    with pytest.raises(Interrupted, match=r"stopped after step \d+ of 40; step \d+ is kept"):
        launch("nanochat.train.pretrain:pretrain", PRETRAIN, inputs, tmp_path / "out", runtime(second, 2))
    assert not list(tmp_path.glob("nanochat-ranks-*"))
    pretrain(PRETRAIN, inputs, tmp_path / "out", runtime(third, 1))

    parts = [part.series("train/loss") for part in (first, second, third)]
    assert [step for part in parts for step, _ in part] == list(range(1, 41))
    assert parts[1][0][0] == 4 and parts[2], "the two ranks began or ended somewhere else"
    assert second.texts[0] == (3, "continuing after step 3")
    losses = {step: loss for part in parts for step, loss in part}
    expected = dict(whole.series("train/loss"))
    # The same batches; sums of floats in another order, of which Muon makes more with each step.
    assert [losses[s] for s in range(1, 7)] == pytest.approx([expected[s] for s in range(1, 7)], rel=1e-3)
    assert losses == pytest.approx(expected, rel=5e-2)
    lines = (tmp_path / "out/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["train/loss"] for line in lines] == [losses[s] for s in range(1, 41)]


@pytest.mark.slow  # starts interpreters with torch
@pytest.mark.parametrize(
    ("function", "processes", "error", "message", "hint"),
    [
        ("fail", 1, DataError, "shard_00003 ends early", "download it again"),
        ("die_on_rank_1", 2, RankKilled, "rank 1 of 2 was ended by SIGKILL", "out of memory"),
        (
            "lose_torchrun",
            1,
            RankKilled,
            "torchrun was ended by SIGKILL; .*step 3 is kept",
            "out of memory",
        ),
    ],
)
def test_a_failed_rank_ends_all_and_its_error_is_raised_here(
    function: str,
    processes: int,
    error: type[NanochatError],
    message: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch, temporary = tmp_path / "scratch", tmp_path / "temporary"
    for folder in (scratch, temporary):
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    runtime, inputs = Runtime(processes=processes, scratch=scratch), {"shards": Path("shard_00003")}
    with pytest.raises(error, match=message) as caught:
        launch(f"tests.support.launched:{function}", TokenizeConfig(), inputs, scratch, runtime)
    assert type(caught.value) is error
    assert hint in (caught.value.hint or "")
    assert list(scratch.iterdir()) == list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "status", "error", "message"),
    [
        (True, 1, Interrupted, "step 3 is kept"),  # the whole process group got the signal
        (False, 1, RankKilled, "torchrun was ended by SIGTERM"),
        (False, -9, RankKilled, "torchrun was ended by SIGTERM"),
    ],
)
def test_only_a_run_that_was_asked_to_stop_is_interrupted(
    asked: bool, status: int, error: type[NanochatError], message: str, tmp_path: Path
) -> None:
    (tmp_path / "log").touch()
    leave_error(tmp_path, "rank 0 of 1", Interrupted("step 3 is kept"))
    leave_error(tmp_path, "torchrun", killed("torchrun", signal.SIGTERM), order=1)
    failure = _failure(tmp_path, status, asked=asked)
    assert type(failure) is error and message in str(failure)


def test_a_rank_that_somebody_else_has_ended_is_no_interruption_either(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    leave_error(tmp_path, "rank 0 of 1", Interrupted("step 3 is kept"))
    failure = _failure(tmp_path, 0, asked=False)
    assert type(failure) is RankKilled and str(failure) == "a rank was ended by SIGTERM; step 3 is kept"


def test_a_stop_that_ended_torchrun_as_well_is_an_interruption(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert type(_failure(tmp_path, -signal.SIGTERM, asked=True)) is Interrupted
    assert type(_failure(tmp_path, -signal.SIGKILL, asked=True)) is not Interrupted


@pytest.mark.slow  # starts three interpreters with torch
@pytest.mark.skipif(sys.platform != "linux", reason="signals at a parent's death are Linux's")
def test_a_killed_parent_leaves_no_process_behind(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    while len(pids := list(tmp_path.glob("*.pid"))) < 2 or not all(p.read_text() for p in pids):
        assert parent.poll() is None
        time.sleep(0.1)
    left = {psutil.Process(int(pid)) for path in pids for pid in path.read_text().split()}
    assert len(left) == 3  # two ranks and torchrun
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while (alive := [process for process in left if _works(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive


def test_a_rank_that_begins_as_its_torchrun_dies_does_not_stay(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    rank = subprocess.run(
        [sys.executable, "-m", "nanochat.ranks.worker", str(tmp_path)],
        env={**os.environ, AGENT_PID: str(gone.pid)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert rank.returncode == 1 and f"parent process {gone.pid} is gone" in rank.stderr


def test_a_rank_that_waits_for_others_ends_soon_after_its_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    ended: list[int] = []
    parents = iter([7, 7, 1])
    monkeypatch.setattr(worker.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(worker.os, "_exit", ended.append)
    monkeypatch.setattr(worker.time, "sleep", waits.append)
    stop = threading.Event()
    worker.end_after(7, stop)
    assert stop.is_set() and ended == [1]
    assert waits[-1] == worker.ORPHAN_ENDS_WITHIN_S and len(waits) == 3


def _works(process: psutil.Process) -> bool:
    """Return whether a process goes on; nobody may have asked yet how one of a dead parent has ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ranks_set_the_mode_without_which_training_is_refused(inputs, tmp_path, monkeypatch):
    monkeypatch.delenv(reproducible.VARIABLE)
    short = PRETRAIN.model_copy(update={"steps": 2, "prompts": ()})
    launch("nanochat.train.pretrain:pretrain", short, inputs, tmp_path, Runtime(threads=2, processes=2))
    assert (tmp_path / "model.safetensors").exists()
