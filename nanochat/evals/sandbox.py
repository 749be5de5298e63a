"""Run a generated program in a fresh interpreter, with limits on time, memory and files.

The interpreter starts isolated and without site packages, in a temporary folder, with a bare environment
and no input, as leader of its own session; the parent kills the whole process group when time is up and
once more at the end. Limits on memory, processor time, file size and processes are set inside the child.
This keeps accidents in, not attackers: the network is open, and so are files that the user may read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["success", "timeout", "memory", "error"]

_SUCCESS, _MEMORY = 96, 97  # not 0, so that a program that ends itself early does not pass
_MAX_OUTPUT = 10_000
_MAX_FILE_BYTES = 16 * 2**20
_LAUNCHER = f"""
import os, resource, sys, traceback
memory, seconds = int(sys.argv[1]), int(sys.argv[2])
limits = {{"RLIMIT_AS": memory, "RLIMIT_DATA": memory, "RLIMIT_STACK": memory, "RLIMIT_CPU": seconds,
          "RLIMIT_FSIZE": {_MAX_FILE_BYTES}, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 1}}
for name, limit in limits.items():
    try:
        resource.setrlimit(getattr(resource, name), (limit, limit))
    except (AttributeError, ValueError, OSError):
        pass  # a limit that this system does not have
with open("program.py", encoding="utf-8") as file:
    source = file.read()
del sys.argv[1:]
code = 1
try:
    exec(compile(source, "program.py", "exec"), {{}})  # __name__ is that of builtins: no main guard runs
    code = {_SUCCESS}
except MemoryError:
    code = {_MEMORY}
except BaseException:
    traceback.print_exc()
try:
    sys.stdout.flush()
finally:
    os._exit(code)
"""


@dataclass(frozen=True, kw_only=True)
class SandboxResult:
    """How a program ended, and the beginning of what it wrote."""

    status: Status
    stdout: str
    stderr: str


def run_python(program: str, *, timeout_s: float = 5.0, memory_bytes: int = 256 * 2**20) -> SandboxResult:
    """Run a program; it succeeds if it reaches its end without an exception."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as root:
        work = Path(root) / "work"
        work.mkdir()
        (work / "program.py").write_text(program, encoding="utf-8", errors="replace")
        out, err = Path(root) / "stdout", Path(root) / "stderr"
        # Files, not pipes: a grandchild that holds a pipe open would keep the parent waiting.
        with out.open("wb") as stdout, err.open("wb") as stderr:
            code = _execute(work, stdout.fileno(), stderr.fileno(), timeout_s, memory_bytes)
        text = [path.read_bytes()[:_MAX_OUTPUT].decode("utf-8", errors="replace") for path in (out, err)]
    return SandboxResult(status=_status(code), stdout=text[0], stderr=text[1])


def _execute(work: Path, stdout: int, stderr: int, timeout_s: float, memory_bytes: int) -> int | None:
    """Return the exit code, or None where the time was up."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(memory_bytes), str(int(timeout_s) + 1)],
        cwd=work,
        env={"HOME": str(work), "TMPDIR": str(work), "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # grandchildren too; often nobody is left
        child.wait()


def _status(code: int | None) -> Status:
    if code is None or code == -signal.SIGXCPU:
        return "timeout"
    return {_SUCCESS: "success", _MEMORY: "memory"}.get(code, "error")  # type: ignore[return-value]
