from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

import flows

_GUARD = Path(flows.__file__).with_name("display") / "guard.py"
_FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
_SLEEPER = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture
def guarded():
    """Start a program under the guard; return the guard and what the program printed first."""
    with ExitStack() as stack:

        def start(program: str) -> tuple[subprocess.Popen[bytes], bytes]:
            command = [sys.executable, "-I", str(_GUARD), sys.executable, "-c", program]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            guard = stack.enter_context(subprocess.Popen(command, **pipes))
            return guard, guard.stdout.readline()

        yield start


def test_command_and_its_children_end_when_the_pipe_closes(guarded) -> None:
    guard, printed = guarded(_FAMILY)
    grandchild = psutil.Process(int(printed))
    assert grandchild.is_running()
    guard.stdin.close()
    assert guard.wait(30.0) != 0
    grandchild.wait(30.0)
    assert not grandchild.is_running()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has parent-death signals")
def test_a_killed_guard_takes_its_command_along(guarded) -> None:
    guard, _ = guarded(_SLEEPER)
    (command,) = psutil.Process(guard.pid).children()
    guard.kill()
    guard.wait(30.0)
    command.wait(30.0)
    assert not command.is_running()


def test_exit_status_is_that_of_the_command(guarded) -> None:
    guard, _ = guarded("raise SystemExit(7)")
    assert guard.wait(30.0) == 7
