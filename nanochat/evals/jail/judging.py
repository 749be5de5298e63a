"""Judges model-written programs by their tests, each in a jail of its own, several at once.

Each judgement is one launcher process (`launcher`), which reads the attempt from an unnamed file and writes
its verdict to a pipe. Both, and the file for its complaints, are opened before it starts and read to a bound;
the program's own process has none of them. A verdict does not depend on how busy the machine is: limits count
processor time and time asleep, and the wall clock ends only a launcher that hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

from nanochat.errors import ConfigError
from nanochat.evals.jail.launcher import main

Level = Literal["namespaces", "landlock", "seatbelt", "none"]
Status = Literal["success", "wrong", "error", "timeout", "memory"]

_ROOT = Path(__file__).parents[3]  # the folder that `nanochat` is imported from
_START = f"""import sys; sys.path.insert(0, {str(_ROOT)!r})
from {main.__module__} import main
del sys.path[0]
main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))"""
_HANGS_S = 600.0
_MAX_OUTPUT = 2**16


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A program and what it is checked against."""

    program: str  # model-written
    test: str  # defines check(candidate)
    entry_point: str  # the program's function that is checked
    helpers: str = ""  # the problem's own text that tests may use, where the program defines the same names


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use; a process that sleeps is ended by another limit than one that works."""

    cpu_seconds: float = 5.0
    memory_bytes: int = 256 * 2**20
    asleep_seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a program did, and the beginning of why."""

    status: Status
    detail: str = ""


class JailError(ConfigError):
    """A jail that could not be built; nothing has run in it."""


def judge_all(
    attempts: Sequence[Attempt], level: Level, *, workers: int, limits: Limits | None = None
) -> list[Verdict]:
    """Judge programs, as many at once as there are workers; verdicts are in the order of the attempts."""
    groups = judge_groups(([attempt] for attempt in attempts), level, workers=workers, limits=limits)
    return [verdict for group in groups for verdict in group]


def judge_groups(
    groups: Iterable[Sequence[Attempt]], level: Level, *, workers: int, limits: Limits | None = None
) -> Iterator[list[Verdict]]:
    """Judge groups of programs while the next are being made; yield each group's verdicts, in order."""
    pool = ThreadPoolExecutor(max_workers=max(workers, 1), thread_name_prefix="judge")
    begun: deque[list[Future[Verdict]]] = deque()
    try:
        for group in groups:
            begun.append([pool.submit(judge, attempt, level, limits=limits) for attempt in group])
            while begun and all(verdict.done() for verdict in begun[0]):
                yield [verdict.result() for verdict in begun.popleft()]
        while begun:
            yield [verdict.result() for verdict in begun.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def judge(attempt: Attempt, level: Level, *, limits: Limits | None = None) -> Verdict:
    """Judge one program; raises JailError where the jail cannot be built."""
    # A checker that ends without a verdict may have been the victim of a full machine: once more, then.
    found = _judged(attempt, level, limits or Limits()) or _judged(attempt, level, limits or Limits())
    return found or Verdict(status="error", detail="the checker was killed twice")


def _judged(attempt: Attempt, level: Level, limits: Limits) -> Verdict | None:
    with contextlib.ExitStack() as stack:
        given = stack.enter_context(tempfile.TemporaryFile())
        complaints = stack.enter_context(tempfile.TemporaryFile())
        # Without a jail a program can write files, so it has a folder for them.
        folder = (
            stack.enter_context(tempfile.TemporaryDirectory(prefix="program-")) if level == "none" else "/"
        )
        given.write(json.dumps(asdict(attempt)).encode("ascii"))
        given.seek(0)
        launcher = _launch(level, limits, folder, given, complaints)
        assert launcher.stdout is not None
        deadline = time.monotonic() + _HANGS_S
        try:
            written = _read(launcher.stdout.fileno(), deadline)
        finally:
            _end(launcher)
        hung = time.monotonic() > deadline
        return _verdict(written, launcher.returncode, os.pread(complaints.fileno(), 2000, 0), hung=hung)


def _launch(
    level: str, limits: Limits, folder: str, given: IO[bytes], complaints: IO[bytes]
) -> subprocess.Popen[bytes]:
    bounds = [str(limits.cpu_seconds), str(limits.memory_bytes), str(limits.asleep_seconds)]
    # The interpreter itself, not the link to it in a virtual environment; no site packages, and nothing of
    # the environment but the seed of hashes, so that the order of a set is the same each time.
    return subprocess.Popen(
        [os.path.realpath(sys.executable), "-S", "-P", "-s", "-X", "utf8", "-c", _START, level, *bounds],
        cwd=folder,
        env={"PYTHONHASHSEED": "0"},
        stdin=given,
        stdout=subprocess.PIPE,
        stderr=complaints,
        bufsize=0,
        start_new_session=True,
    )


def _read(fd: int, deadline: float) -> bytes:
    """Read what a launcher writes until it closes, writes too much, or the time is up."""
    written = bytearray()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(written) < _MAX_OUTPUT and (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            part = os.read(fd, _MAX_OUTPUT)
            if not part:
                break
            written += part
    return bytes(written)


def _end(launcher: subprocess.Popen[bytes]) -> None:
    """End a launcher and all in its group; its program ends with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()
    assert launcher.stdout is not None
    launcher.stdout.close()


def _verdict(written: bytes, code: int, complaints: bytes, *, hung: bool) -> Verdict | None:
    first, _, second = written.decode("ascii", errors="replace").partition("\n")
    if first != "{}":
        reason = json.loads(first)["failed"] if first else complaints.decode(errors="replace").strip()
        raise JailError(f"the jail could not be built: {reason or f'the launcher ended with {code}'}")
    if second:
        return Verdict(**json.loads(second))
    if hung or code == -signal.SIGXCPU:
        return Verdict(status="timeout", detail="the checker used all of its time")
    return None
