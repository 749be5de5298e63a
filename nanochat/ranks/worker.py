"""One rank: runs one stage function as torchrun started it, and talks to the parent if it is rank 0.

`python -m nanochat.ranks.worker FOLDER`. Standard output carries rank 0's JSON lines and nothing else
(what other code prints goes to standard error); standard input carries the parent's answers. The protocol
is described in `nanochat.ranks.launch`.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import torch
from torch import distributed

from nanochat.errors import ConfigError, Interrupted
from nanochat.ranks.agent import AGENT_PID, die_with
from nanochat.ranks.launch import LaunchedJob, leave_error
from nanochat.runtime import NullTracker, Runtime

# Longer than rank 0 samples texts, or waits for the parent to keep a restart point, while the others wait.
_TIMEOUT = timedelta(hours=1)
ORPHAN_ENDS_WITHIN_S = 60.0  # time for the step that it is in, and for the restart point after it
_LOOK_S = 1.0


class Parent:
    """The process that started the ranks, as rank 0 talks to it."""

    def __init__(self, out: IO[str], answers: IO[str], stop: threading.Event) -> None:
        self._out, self._answers, self._stop = out, answers, stop
        self._telling = threading.Lock()
        self._kept = threading.Semaphore(0)
        threading.Thread(target=self._hear, name="answers", daemon=True).start()

    def tell(self, what: str, **fields: object) -> None:
        """Send one message; a parent that is gone ends this process."""
        line = json.dumps({"what": what, **fields})
        try:
            with self._telling:
                self._out.write(f"{line}\n")
                self._out.flush()
        except BrokenPipeError:
            os._exit(1)

    def wait_until_kept(self) -> None:
        """Wait until the parent has kept one more restart point."""
        self._kept.acquire()

    def _hear(self) -> None:
        for word in self._answers:
            if word.strip() == "stop":
                self._stop.set()
            else:
                self._kept.release()
        os._exit(1)  # the parent is gone or has given up: nothing would be kept


class PipeTracker:
    """A tracker that passes everything on to the parent."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        """Pass on the numbers of a step."""
        self._parent.tell("metrics", metrics=dict(metrics), step=step, total_steps=total_steps)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Pass on settings."""
        self._parent.tell("params", params=dict(params))

    def log_text(self, text: str, *, step: int) -> None:
        """Pass on a text."""
        self._parent.tell("text", text=text, step=step)

    def close(self) -> None:
        """Nothing is held open."""


class RankRestartPoints:
    """Restart points that the parent keeps; only rank 0 has any to give."""

    def __init__(self, latest: tuple[int, Path] | None, scratch: Path, parent: Parent | None) -> None:
        self._latest, self._scratch, self._parent = latest, scratch, parent
        self._handed_over: list[tuple[int, Path]] = []  # the last kept one, and one that may not be yet

    def save(self, step: int, folder: Path) -> None:
        """Hand over the files of `folder`; training goes on while the parent keeps them."""
        assert self._parent
        self.latest()
        mine = self._scratch / f"restart-{step:08d}"
        folder.rename(mine)
        folder.mkdir()  # the caller's, who removes it
        self._parent.tell("restart point", step=step, folder=str(mine))
        self._handed_over.append((step, mine))

    def latest(self) -> tuple[int, Path] | None:
        """Return the newest restart point, once it is kept."""
        if self._handed_over and self._handed_over[-1] != self._latest:
            assert self._parent
            self._parent.wait_until_kept()
            self._latest = self._handed_over[-1]
            for _, folder in self._handed_over[:-1]:
                shutil.rmtree(folder)
            del self._handed_over[:-1]
        return self._latest


class _Relay(logging.Handler):
    """Passes warnings on to the parent's log."""

    def __init__(self, parent: Parent) -> None:
        super().__init__(logging.WARNING)
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        self._parent.tell("warning", text=f"{record.name}: {record.getMessage()}")


def main(folder: Path) -> int:
    """Run the job of `folder` as one rank; return the exit status."""
    agent = int(os.environ.get(AGENT_PID, os.getppid()))
    die_with(agent)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    stop = threading.Event()
    threading.Thread(target=end_after, args=(agent, stop), name="torchrun-gone", daemon=True).start()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    parent = Parent(out, sys.stdin, stop) if rank == 0 else None
    try:
        result = _run(folder, parent, stop)
    except BaseException as error:
        leave_error(folder, f"rank {rank} of {size}", error, trace=traceback.format_exc())
        return 0 if isinstance(error, Interrupted) else 1
    if parent:
        parent.tell("result", result=result)
    return 0


def end_after(agent: int, stop: threading.Event) -> None:
    """Stop this rank once torchrun is gone; end it if it does not stop: no signal ends a wait for others."""
    while os.getppid() == agent:
        time.sleep(_LOOK_S)
    stop.set()
    time.sleep(ORPHAN_ENDS_WITHIN_S)
    os._exit(1)


def _run(folder: Path, parent: Parent | None, stop: threading.Event) -> dict[str, Any]:
    job = LaunchedJob.read(folder)
    device = _join(job.runtime["device"])
    restart = (job.restart[0], Path(job.restart[1])) if job.restart else None
    if parent:
        logging.getLogger().addHandler(_Relay(parent))
    given = {**job.runtime, "device": device, "scratch": folder, "stop": stop}
    runtime = Runtime(
        tracker=PipeTracker(parent) if parent else NullTracker(),
        restart_points=RankRestartPoints(restart, folder, parent),
        **given,
    )
    module, _, function = job.function.partition(":")
    run = getattr(importlib.import_module(module), function)
    inputs = {name: Path(path) for name, path in job.inputs.items()}
    result = dict(run(job.stage_config(), inputs, Path(job.out), runtime))
    distributed.destroy_process_group()
    return result


def _join(device: str) -> str:
    """Join the other ranks; return this one's own device."""
    cuda = device.startswith("cuda")
    if cuda:
        local, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= found:
            raise ConfigError(
                f"processes is {os.environ['WORLD_SIZE']} but this machine has {found} CUDA devices",
                hint=f"use --processes {max(found, 1)}, or device cpu",
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_TIMEOUT)
    return device


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    # Not sys.exit: a thread still reads standard input, and other ranks may be gone without a word.
    sys.stderr.flush()
    os._exit(status)
