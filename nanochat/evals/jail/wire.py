"""Messages between the two processes of a judgement: a length, then JSON, over pipes.

The checker's side never trusts what comes: lengths are bounded, and it waits only as long as the program has
time. That time is what the scheduler says of the program's process: on a processor, waiting for one, and so,
by what is left of the clock, asleep. A busy machine takes nothing from an honest program. Where the system
does not say it (macOS), working is bounded by the process's own limit, and everything else by the clock.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

MAX_BYTES = 16 * 2**20
_HEADER = struct.Struct(">I")
_LOOK_MS = 250
_PORTION = 2**16


class GoneError(BaseException):
    """The program's process ended or spoke nonsense; not an Exception, so that no test's text catches it."""


class TimeUpError(GoneError):
    """The program has used its processor time, or sleeps."""


def pack(message: list[Any]) -> bytes:
    """Return the bytes of a message."""
    data = json.dumps(message).encode("ascii")
    if len(data) > MAX_BYTES:
        raise ValueError(f"a value of {len(data)} bytes, at most {MAX_BYTES} are passed on")
    return _HEADER.pack(len(data)) + data


def send(fd: int, message: list[Any]) -> None:
    """Write a message; waits for the reader."""
    data = memoryview(pack(message))
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int) -> list[Any] | None:
    """Read a message; waits for it. None: the other side is gone."""
    header = _exactly(fd, _HEADER.size)
    data = _exactly(fd, _HEADER.unpack(header)[0]) if header else b""
    return json.loads(data) if data else None


def _exactly(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(fd, min(size - len(data), _PORTION))
        if not part:
            return b""
        data += part
    return bytes(data)


class Line:
    """The checker's end of the line to the program."""

    def __init__(
        self, to_program: int, from_program: int, process: int, cpu_s: float, asleep_s: float
    ) -> None:
        self._out, self._in, self._cpu_s = to_program, from_program, cpu_s
        self._schedstat, self._own_schedstat = _open_schedstat(process), _open_schedstat("self")
        self._left_s = asleep_s  # how long the program may yet sleep, all waits together
        os.set_blocking(to_program, False)

    def send(self, message: list[Any]) -> None:
        """Write a message; raises GoneError where nobody takes it."""
        data = memoryview(pack(message))
        while data:
            self._wait(self._out, select.POLLOUT)
            try:
                data = data[os.write(self._out, data[:_PORTION]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise GoneError("the program ended itself") from error

    def receive(self) -> list[Any]:
        """Read a message; raises GoneError where none comes."""
        (size,) = _HEADER.unpack(self._exactly(_HEADER.size))
        if size > MAX_BYTES:
            raise GoneError(f"a message of {size} bytes")
        try:
            message = json.loads(self._exactly(size))
        except (ValueError, RecursionError) as error:
            raise GoneError(f"not a message: {error}") from error
        if not isinstance(message, list) or not message:
            raise GoneError("not a message")
        return message

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(self._in, select.POLLIN)
            part = os.read(self._in, min(size - len(data), _PORTION))
            if not part:
                raise GoneError("the program ended itself")
            data += part
        return bytes(data)

    def _wait(self, fd: int, event: int) -> None:
        poll = select.poll()
        poll.register(fd, event)
        before, late_before = self._asleep_since_start(), self._late()
        if poll.poll(0):
            return
        answered = False
        while not answered:
            answered = bool(poll.poll(_LOOK_MS))
            now, late = self._asleep_since_start(), self._late()
            # The program did not sleep while an answer lay there and it was us who waited for a processor.
            self._left_s -= max(now - before - (late - late_before), 0.0)
            before, late_before = now, late
            if self._left_s < 0:
                raise TimeUpError("the program waits for something that does not come")

    def _late(self) -> float:
        """Return how long this process has waited for a processor so far."""
        return _scheduled(self._own_schedstat)[1]

    def _asleep_since_start(self) -> float:
        """Return a clock that stands while the program works or would; raises when it has worked too long."""
        running, waiting = _scheduled(self._schedstat)
        if running > self._cpu_s:
            raise TimeUpError("the program used all of its processor time")
        return time.monotonic() - running - waiting


def _open_schedstat(process: int | str) -> int | None:
    """Open what the scheduler says of a process, where there is such a file."""
    try:
        return os.open(f"/proc/{process}/schedstat", os.O_RDONLY)
    except OSError:
        return None


def _scheduled(schedstat: int | None) -> tuple[float, float]:
    """Return the seconds that a process was on a processor, and those it waited for one."""
    found = os.pread(schedstat, 200, 0).split() if schedstat is not None else []
    return (int(found[0]) / 1e9, int(found[1]) / 1e9) if found else (0.0, 0.0)
