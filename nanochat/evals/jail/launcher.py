"""The first process of a judgement: forks the program's process, then becomes its checker.

Run as `python -c` with nothing but the standard library; arguments: level, processor seconds, memory bytes,
seconds asleep. The program's process is forked and confined before the attempt is read, so that the tests are
never in its memory; the code comes to it by the line alone. Writes two lines to standard output: `{}` or what
failed while setting up, then the verdict.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from nanochat.evals.jail import candidate, checking, confinement, wire

_CHECKER_EXTRA_SECONDS = 5  # the tests' own time, beyond as much as the program has
_CHECKER_MEMORY = 2**30


def main(level: str, cpu_seconds: float, memory_bytes: int, asleep_s: float) -> None:
    """Judge the attempt on standard input."""
    out = os.dup(1)
    try:
        program = _start(level, cpu_seconds, memory_bytes, asleep_s, out)
        confinement.limit(2 * cpu_seconds + _CHECKER_EXTRA_SECONDS, max(_CHECKER_MEMORY, 2 * memory_bytes))
        confinement.confine(level, program=False)
    except (OSError, wire.GoneError) as error:
        _write(out, {"failed": str(error)})
        os._exit(1)
    _write(out, {})
    with open(0, "rb", closefd=False) as file:
        attempt = json.loads(file.read())
    verdict = checking.check(program, attempt)
    _write(out, verdict)
    os._exit(0)


def _start(level: str, cpu_seconds: float, memory_bytes: int, asleep_s: float, out: int) -> checking.Program:
    """Fork the program's process and wait until it is confined."""
    null = os.open(os.devnull, os.O_WRONLY)  # a program that reads its input fails, as upstream's does
    if level == "namespaces":
        from nanochat.evals.jail import namespaces

        namespaces.enter()
    requests, to_program = os.pipe()
    from_program, replies = os.pipe()
    pid = os.fork()
    if pid == 0:
        kept = _only(null, requests, replies)
        _be_program(level, cpu_seconds, memory_bytes, *kept)
    os.close(requests)
    os.close(replies)
    line = wire.Line(to_program, from_program, pid, cpu_seconds, asleep_s)
    (found,) = line.receive()
    if found:
        raise OSError(found)
    for fd in (1, 2):
        os.dup2(null, fd)  # what the tests print
    return checking.Program(pid, line, cpu_seconds)


def _only(null: int, requests: int, replies: int) -> tuple[int, int]:
    """Close all descriptors but the program's ends of the line; standard ones lead nowhere."""
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    high = os.dup2(requests, 100), os.dup2(replies, 101)
    os.closerange(3, 100)
    kept = os.dup(high[0]), os.dup(high[1])
    os.closerange(100, 65536)
    return kept


def _be_program(level: str, cpu_seconds: float, memory_bytes: int, requests: int, replies: int) -> None:
    try:
        os.environ.clear()
        sys.argv[1:] = []
        confinement.limit(cpu_seconds, memory_bytes)
        confinement.confine(level, program=True)
        wire.send(replies, [""])
    except BaseException as error:
        wire.send(replies, [f"{type(error).__name__}: {error}"])
        os._exit(1)
    try:
        candidate.serve(requests, replies)
    finally:
        os._exit(0)


def _write(out: int, line: dict[str, Any]) -> None:
    os.write(out, json.dumps(line).encode() + b"\n")
