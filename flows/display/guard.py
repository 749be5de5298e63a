"""Run a command that must not outlive its parent: `python -I guard.py COMMAND...`.

The parent holds the other end of standard input. When that closes, however the parent died, the whole
process group of the command is ended, grandchildren too (a parent-death signal reaches only the child, and
is what ends it where the guard itself is killed; Linux only). Needs only the standard library and starts in
milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from functools import partial
from types import FrameType

_GRACE_S = 5.0
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command of `sys.argv`; return its exit status."""
    asked: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die = partial(_die_with, os.getpid())
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die)
    while child.poll() is None and not asked:
        if select.select([0], [], [], 0.2)[0] and not os.read(0, 1):
            break
    _end(child)
    return child.returncode


def _die_with(guard: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != guard:  # it was killed before it could be followed
            os._exit(1)


def _end(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)


if __name__ == "__main__":
    sys.exit(main())
