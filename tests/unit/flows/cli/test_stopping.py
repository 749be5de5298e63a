"""After the first signal a run ends by itself or is ended, but never before its restart points are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from flows.cli.stopping import AFTER_STOP_S, end_in_time

ROOT = Path(__file__).parents[4]
_STUCK = """
import os, sys, threading, time
from flows.cli import stopping
stopping.AFTER_STOP_S = 0.2
stop, at_work = threading.Event(), threading.Event()
at_work.set()

def leave():
    print("kept" if not at_work.is_set() else "lost", flush=True)
    os._exit(1)

with stopping.stopping_on_signals(stop, lambda text: None, at_work.is_set, leave):
    print("ready", flush=True)
    stop.wait()
    time.sleep(0.5)  # a restart point is saved
    at_work.clear()
threading.Thread(target=time.sleep, args=(600,)).start()  # what Python waits for at its exit
"""


def test_nothing_is_left_while_a_restart_point_is_being_kept_or_soon_after():
    now, left = 0.0, []

    def sleep(_: float) -> None:
        nonlocal now
        now += 1.0  # a busy machine wakes late

    end_in_time(lambda: 2.0 <= now <= 4.0, lambda: left.append(now), lambda: now, sleep)
    assert left == [4.0 + AFTER_STOP_S]


def test_a_process_whose_exit_hangs_ends_all_the_same_once_its_work_is_kept():
    command = [sys.executable, "-c", _STUCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGTERM)
        assert process.stdout.readline() == "kept\n"
        assert process.wait(60) == 1
