"""Tests on a GPU that hang, crash or break its context cost themselves alone (`tests.gpu.supervision`)."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from kernels.measurement import Measurement, read
from tests.gpu import supervision

ROOT = Path(__file__).parents[3]
CONFTEST = """
from pathlib import Path
from tests.gpu.supervision import Recorder

class Pretending(Recorder):
    def _broken(self, item):
        return item.name == "test_breaks"

def pytest_configure(config):
    config.pluginmanager.register(Pretending("cpu", Path({results!r}), "tiny"))
"""
TESTS = """
import os, signal, time
import pytest

def test_right():
    pass

@pytest.fixture
def model():
    assert 1 == 2, "wrong by one"

def test_breaks(model):
    pass

def test_crashes():
    os.kill(os.getpid(), signal.SIGSEGV)

def test_hangs():
    time.sleep(600)

def test_left_out():
    pytest.skip("not here")

def test_last():
    pass
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def go(tests, **limits):
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        (tmp_path / "conftest.py").write_text(CONFTEST.format(results=str(tmp_path / "results")))
        (tmp_path / "test_it.py").write_text(tests)
        status = supervision.supervise([str(tmp_path)], tmp_path / "results", **limits)
        return status, read(tmp_path / "results/tests.json")

    return go


@pytest.mark.slow  # starts four interpreters with torch
def test_each_test_has_its_outcome_whatever_became_of_the_one_before(run):
    status, held = run(TESTS, seconds=600, limit_s=4)
    assert status == 1
    assert {check["name"]: check["ok"] for check in held.checks} == {
        "it: right": True,
        "it: breaks": False,
        "it: crashes": False,
        "it: hangs": False,
        "it: last": True,
    }
    details = [check["detail"] for check in held.checks]
    assert "wrong by one" in details[1]
    assert details[2:4] == ["the process was ended by signal 11", "still running after 4 s: killed"]
    assert held.rows == [{"collected": 6}, {"test": "it: left_out", "skipped": "not here"}]


@pytest.mark.parametrize("late", [True, False])
def test_a_test_that_outlasts_the_time_is_left_out_and_is_not_wrong(late, tmp_path):
    Measurement("tests", tmp_path, {}).add_check("it: right", True)
    (tmp_path / "tests.running").write_text("it: slow")
    assert supervision._record_end(tmp_path, "killed", late=late)
    held = read(tmp_path / "tests.json")
    assert [row["test"] for row in held.rows] == (["it: slow"] if late else [])
    assert held.wrong == ([] if late else ["it: slow"])
    assert not supervision._record_end(tmp_path, "killed", late=late)  # none is running now


def test_a_child_is_not_waited_for_after_the_end(tmp_path):
    with subprocess.Popen(["sleep", "600"]) as child:
        why = supervision._wait(child, tmp_path / "tests.running", end=time.time(), limit_s=500)
        child.kill()
    assert why == "still running when the time was used up: killed"
