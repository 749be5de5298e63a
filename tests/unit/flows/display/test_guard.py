from __future__ import annotations

import subprocess
import sys
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


def test_command_and_its_children_end_when_the_pipe_closes() -> None:
    guard = subprocess.Popen(
        [sys.executable, "-I", str(_GUARD), sys.executable, "-c", _FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert guard.stdin and guard.stdout
    grandchild = psutil.Process(int(guard.stdout.readline()))
    assert grandchild.is_running()
    guard.stdin.close()
    assert guard.wait(30.0) != 0
    guard.stdout.close()
    grandchild.wait(30.0)
    assert not grandchild.is_running()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has parent-death signals")
def test_a_killed_guard_takes_its_command_along() -> None:
    guard = subprocess.Popen(
        [sys.executable, "-I", str(_GUARD), sys.executable, "-c", _SLEEPER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert guard.stdin and guard.stdout
    guard.stdout.readline()
    (command,) = psutil.Process(guard.pid).children()
    guard.kill()
    guard.wait(30.0)
    command.wait(30.0)
    assert not command.is_running()
    guard.stdin.close()
    guard.stdout.close()


def test_exit_status_is_that_of_the_command() -> None:
    guard = subprocess.Popen(
        [sys.executable, "-I", str(_GUARD), sys.executable, "-c", "raise SystemExit(7)"],
        stdin=subprocess.PIPE,
    )
    assert guard.wait(30.0) == 7
    assert guard.stdin
    guard.stdin.close()
