"""Keeps the tests of a GPU going, and what they showed.

The parent starts pytest again as its child and waits. The child (`Recorder`) writes each outcome to
`tests.json` and names the running test in `tests.running`. If a test takes too long, the child is killed; if
it kills the process, or leaves the CUDA context broken so that no later test could pass, the child ends. In
each case the test is recorded as wrong, and a new child runs those that have no outcome yet. The parent never
touches the GPU. A caller that ends the parent's process group ends the child and its GPU work too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import measurement
from kernels.measurement import Measurement
from tests.gpu.compile_ahead import start_compiling

PART = "tests"
_BEGAN = "NANOCHAT_GPU_TESTS_BEGAN"  # in a child: when the parent began
_LOST = 77  # a child's exit status: its CUDA context is broken
_GRACE_S = 8.0  # after the time is used up, for a test that is running
_LOADED = time.time()


def supervised() -> bool:
    """Return whether this process is such a child."""
    return _BEGAN in os.environ


def began() -> float:
    """Return when the run began."""
    return float(os.environ.get(_BEGAN, _LOADED))


def supervise(arguments: list[str], folder: Path, seconds: float, limit_s: float | None = None) -> int:
    """Run pytest with these arguments in child processes until every test has an outcome.

    A test has `limit_s`, or half of the time for all; return pytest's exit status, 1 if a child was killed.
    """
    limit_s = limit_s or max(30.0, seconds / 2)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (f"{PART}.json", f"{PART}.running"):
        (folder / name).unlink(missing_ok=True)
    end, worst = time.time() + seconds + _GRACE_S, 0
    environment = os.environ | {_BEGAN: str(time.time())}
    while True:
        child = subprocess.Popen([sys.executable, "-m", "pytest", *arguments], env=environment)
        try:
            why = _wait(child, folder / f"{PART}.running", end, limit_s)
        finally:
            child.kill()
            child.wait()
        if not why and child.returncode != _LOST:
            return max(worst, child.returncode)
        late = time.time() > end
        if child.returncode != _LOST and not _record_end(folder, why, late=late):
            return 1  # it died outside of any test
        if late:
            return worst
        worst = 1


def _wait(child: subprocess.Popen[bytes], running: Path, end: float, limit_s: float) -> str:
    """Wait for the child; return why it did not end by itself, or what killed it."""
    while child.poll() is None:
        time.sleep(0.2)
        try:
            age = time.time() - running.stat().st_mtime
        except FileNotFoundError:
            age = 0.0
        if age > limit_s:
            return f"still running after {limit_s:.0f} s: killed"
        if time.time() > end:
            return "still running when the time was used up: killed"
    return f"the process was ended by signal {-child.returncode}" if child.returncode < 0 else ""


def _record_end(folder: Path, why: str, *, late: bool) -> bool:
    """Record the outcome of a test that could not do it itself; return whether one was running."""
    running = folder / f"{PART}.running"
    if not running.exists():
        return False
    held = measurement.read(folder / f"{PART}.json")
    name = running.read_text(encoding="utf-8")
    if late:
        held.add_row(test=name, skipped=why)
    else:
        held.add_check(name, False, why)
    running.unlink()
    return True


class Recorder:
    """A child's plugin: writes outcomes, and leaves out tests that have one."""

    def __init__(self, device: str, folder: Path, sizes: str) -> None:
        self._device, self._folder, self._sizes = device, folder, sizes
        self._running = folder / f"{PART}.running"
        self._goes_on = (folder / f"{PART}.json").exists()
        self._held: Measurement | None = None

    @property
    def held(self) -> Measurement:
        """Return what is recorded; the first use may start the device."""
        if self._held is None:
            named = argparse.Namespace(device=self._device, results=self._folder)
            path = self._folder / f"{PART}.json"
            self._held = measurement.read(path) if self._goes_on else Measurement.start(PART, named)
        return self._held

    def keep(self, item: pytest.Item, **numbers: object) -> None:
        """Keep a row of numbers that a test measured."""
        self.held.add_row(test=_name(item), **numbers)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._goes_on:
            done = {check["name"] for check in self.held.checks}
            done |= {row["test"] for row in self.held.rows if "skipped" in row}
            items[:] = [item for item in items if _name(item) not in done]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self._goes_on:
            return
        if self._device == "cuda":
            start_compiling(self._sizes)  # in forks, before this process uses the device
        self.held.add_row(collected=len(session.items))  # the file exists before the first test

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._running.write_text(_name(item), encoding="utf-8")
        result = yield
        self._running.unlink()
        if self._broken(item):
            sys.stderr.write(f"{_name(item)} broke the CUDA context: going on in a new process\n")
            os._exit(_LOST)  # nothing that would use the device on the way out
        return result

    def _broken(self, item: pytest.Item) -> bool:
        if self._device != "cuda" or not self.held.checks or self.held.checks[-1]["ok"]:
            return False
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return True
        return False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        if report.skipped:
            self.held.add_row(test=_name(item), skipped=str(report.longrepr[2]).removeprefix("Skipped: "))
        elif report.failed:
            # Under its own name also what fails in a fixture: without an outcome a test that breaks the CUDA
            # context there would be run again by every new child.
            place = " (teardown)" if report.when == "teardown" else ""
            self.held.add_check(_name(item) + place, False, _short(report.longrepr))
        elif report.when == "call":
            self.held.add_check(_name(item), True)
        return report


def _name(item: pytest.Item) -> str:
    return f"{item.path.stem.removeprefix('test_')}: {item.name.removeprefix('test_')}"


def _short(failure: Any) -> str:
    crash = getattr(failure, "reprcrash", None)
    return (crash.message if crash else str(failure))[:800]
