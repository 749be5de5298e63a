"""One stage on several processes of this machine: started under torchrun, led and stopped by their parent.

The parent keeps lease, store, restart points and tracker. It writes a job file, starts torchrun
(`nanochat.ranks.agent`) and listens; rank 0 (`nanochat.ranks.worker`) sends it in JSON lines what
the stage reports: numbers and texts for the tracker, folders to keep as restart points, the result. The
parent answers in lines: `kept` once a restart point is, `stop` when the run must end soon. A rank that fails
leaves its error in the job's folder, and the parent raises it as if the stage had run here.

Nothing outlives its parent: torchrun gets a signal when the parent dies (on Linux), the ranks when torchrun
does, and rank 0 ends with its standard input. torchrun stays in the parent's process group, so that what ends
the group ends it too; it ignores only Ctrl-C, since the parent passes that on as a stop.

This module needs no torch. One machine; several are not handled.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanochat import config as configs
from nanochat import errors
from nanochat.config import Config
from nanochat.errors import Interrupted, NanochatError, RankKilled, TrainingError
from nanochat.runtime import Runtime
from nanochat.system_errors import explain, is_about_files

logger = logging.getLogger(__name__)
_JOB, _LOG, _ERROR = "job.json", "log", ".error.json"
_LOOK_S = 0.2  # how late a stop is passed on
_END_S = 60.0  # torchrun itself kills its ranks after 30 s
_LOG_LINES = 15


@dataclass(frozen=True, kw_only=True)
class LaunchedJob:
    """What the ranks are to do, as plain data in a file."""

    function: str  # "module:function" of the stage
    config_type: str  # name in `nanochat.config`
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    out: str
    runtime: Mapping[str, Any]
    restart: tuple[int, str] | None  # step and folder of the newest restart point

    def write(self, folder: Path) -> None:
        """Write the job into its folder."""
        (folder / _JOB).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> LaunchedJob:
        """Read the job from its folder."""
        return cls(**json.loads((folder / _JOB).read_text(encoding="utf-8")))

    def stage_config(self) -> Config:
        """Return the configuration of the stage."""
        kind: type[Config] = getattr(configs, self.config_type)
        return kind.model_validate(self.config)


def launch(
    function: str, config: Config, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Run a stage function on `runtime.processes` processes; return its metrics.

    Raises the error of the rank that failed first; one that is not of the project's tree as TrainingError.
    """
    with tempfile.TemporaryDirectory(prefix="nanochat-ranks-", dir=runtime.scratch) as name:
        folder = Path(name)
        latest = runtime.restart_points.latest()
        job = LaunchedJob(
            function=function,
            config_type=type(config).__name__,
            config=config.model_dump(mode="json"),
            inputs={key: str(path.resolve()) for key, path in inputs.items()},
            out=str(out.resolve()),
            runtime=_for_ranks(runtime),
            restart=(latest[0], str(latest[1].resolve())) if latest else None,
        )
        job.write(folder)
        with _torchrun(folder, runtime.processes) as ranks, _passing_on(runtime.stop, ranks):
            result = ranks.listen(runtime)
            status = ranks.process.wait()
        if result is None or status:
            raise _failure(folder, status, asked=runtime.stop.is_set())
        return result


def leave_error(folder: Path, who: str, error: BaseException, *, trace: str = "", order: int = 2) -> None:
    """Leave an error in a job's folder for the parent to raise: those of the project's tree come first.

    Of the others the one of the lowest `order` does: a killed rank before those that lost it.
    """
    if isinstance(error, OSError) and is_about_files(error):
        error = explain(error, who, (folder,))
    known = isinstance(error, NanochatError)
    record = {
        "order": (0 if known and order == 2 else order, time.time()),
        "type": type(error).__name__ if known else TrainingError.__name__,
        "message": str(error) if known else f"{who} failed with {type(error).__name__}: {error}",
        "hint": getattr(error, "hint", None),
        "trace": trace,
    }
    path = folder / f"{who.replace(' ', '-')}{_ERROR}"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record), encoding="utf-8")
    part.rename(path)


def _for_ranks(runtime: Runtime) -> dict[str, Any]:
    return {
        "device": runtime.device,
        "threads": max(1, runtime.threads // runtime.processes),
        "micro_batch_rows": runtime.micro_batch_rows,
        "restart_point_every_s": runtime.restart_point_every_s,
        "processes": runtime.processes,
    }


@dataclass(frozen=True)
class _Ranks:
    """The running torchrun and the two pipes to rank 0."""

    process: subprocess.Popen[str]
    _writing: threading.Lock

    def listen(self, runtime: Runtime) -> dict[str, Any] | None:
        """Pass on what rank 0 sends until it sends no more; return the result if there was one."""
        result: dict[str, Any] | None = None
        assert self.process.stdout
        for line in self.process.stdout:
            said = json.loads(line)
            what = said.pop("what")
            if what == "metrics":
                runtime.tracker.log(said.pop("metrics"), **said)
            elif what == "text":
                runtime.tracker.log_text(said.pop("text"), **said)
            elif what == "params":
                runtime.tracker.log_params(said["params"])
            elif what == "restart point":
                runtime.restart_points.save(said["step"], Path(said["folder"]))
                self.answer("kept")
            elif what == "warning":
                logger.warning("%s", said["text"])
            else:
                result = said["result"]
        return result

    def answer(self, word: str) -> None:
        """Send a word to rank 0."""
        assert self.process.stdin
        with self._writing:
            try:
                self.process.stdin.write(f"{word}\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                logger.debug("nobody is left to read %r", word)

    def end(self) -> None:
        """End what still runs, and let go of the pipes."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.communicate(timeout=_END_S)  # closes rank 0's input, which ends it
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


@contextmanager
def _torchrun(folder: Path, processes: int) -> Iterator[_Ranks]:
    """Run torchrun while the block does, or as long as it needs after a result."""
    agent = [
        sys.executable,
        "-m",
        "nanochat.ranks.agent",
        str(os.getpid()),
        str(processes),
        str(folder),
    ]
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    with (folder / _LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            agent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env={**loopback, **os.environ},
        )
    ranks = _Ranks(process, threading.Lock())
    try:
        yield ranks
    finally:
        ranks.end()


@contextmanager
def _passing_on(stop: threading.Event, ranks: _Ranks) -> Iterator[None]:
    """Notify rank 0 when the run is asked to stop."""
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if stop.wait(_LOOK_S):
                ranks.answer("stop")
                return

    thread = threading.Thread(target=watch, name="stop-of-ranks")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def killed(who: str, number: int, kept: str = "") -> RankKilled:
    """Return the error for a process that a signal has ended, which nobody here has sent."""
    return RankKilled(
        f"{who} was ended by {signal.Signals(number).name}{f'; {kept}' if kept else ''}",
        hint="after SIGKILL, see whether the machine ran out of memory; the same command goes on from the"
        " last restart point",
    )


def _failure(folder: Path, status: int, *, asked: bool) -> NanochatError:
    """Return what went wrong first; an interruption only if the run was `asked` to stop."""
    left = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob(f"*{_ERROR}")]
    if not asked:
        # Ranks that lost torchrun, or that it ends because of another, stop as if the run had been asked to.
        stopped = [record for record in left if record["type"] == Interrupted.__name__]
        left = [record for record in left if record not in stopped]
        kept = stopped[0]["message"] if stopped else ""
        if status < 0 and not left:
            return killed("torchrun", -status, kept)
        if stopped and not left:
            return killed("a rank", signal.SIGTERM, kept)
    elif not left and status == -signal.SIGTERM:
        # What asked the run to stop was sent to its whole group, and ended torchrun before its ranks stopped.
        return Interrupted("the ranks were ended before they had stopped by themselves")
    log = (folder / _LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    if not left:
        return TrainingError(
            f"the ranks ended with status {status} and left no error",
            hint="\n".join(["the end of their log:", *log]),
        )
    first = min(left, key=lambda record: record["order"])
    kind: type[NanochatError] = getattr(errors, first["type"])
    error = kind(first["message"], hint=first["hint"])
    error.add_note(first["trace"] or "\n".join(log))
    return error
