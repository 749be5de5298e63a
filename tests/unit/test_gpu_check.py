"""The GPU check's own work: how much time a part gets, what becomes of its file, and the verdict."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from kernels.goals import goals_of
from kernels.measurement import Measurement

ROOT = Path(__file__).parents[2]

# A part that notes its time and one check, and then does `then`; without PyTorch, to start quickly.
PROGRAM = """
import json, pathlib, subprocess, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
file = pathlib.Path(options["--results"]) / "{name}.json"
held = dict(about={{}}, rows=[float(options["--seconds"])], goals={goals})
held["checks"] = [dict(name="finite", ok={right}, detail="at 3")]
file.write_text(json.dumps(held))
{then}
"""


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "infra/gpu/check.py")
    module = sys.modules["gpu_check"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_check"]


@pytest.fixture
def part(check, tmp_path):
    def make(name, then="", *, right=True, goals=None, least_s=0.0):
        file = tmp_path / f"{name}.py"
        file.write_text(PROGRAM.format(name=name, right=right, then=then, goals=goals or {}))
        return check.Part(name=name, arguments=(str(file),), weight=1, least_s=least_s)

    return make


def _ran(check, tmp_path, parts, seconds=60.0):
    outcomes = check.run_parts(tuple(parts), seconds, ["--device", "cpu", "--sizes", "tiny"], tmp_path)
    return outcomes, *check.summary(outcomes, tmp_path)


def test_time_that_a_part_does_not_use_goes_to_the_later_ones(check, part, tmp_path):
    outcomes, _, good = _ran(check, tmp_path, [part("tests"), part("step")], seconds=200)
    given = [json.loads((tmp_path / f"{o.part}.json").read_text())["rows"][0] for o in outcomes]
    assert 80 <= given[0] <= 90
    assert given[1] > 120
    assert good


def test_a_part_without_enough_time_is_left_out_and_is_no_failure(check, part, tmp_path):
    outcomes, text, good = _ran(check, tmp_path, [part("tests"), part("step", least_s=500)])
    assert outcomes[1].left_out.endswith("s left, 500 needed")
    assert "| d20 step | not measured | at most 385 ms |  |" in text
    assert good


def test_a_wrong_number_fails_the_run_and_is_named(check, part, tmp_path):
    _, text, good = _ran(check, tmp_path, [part("tests", right=False), part("step")])
    assert "* WRONG, tests: finite" in text
    assert not good


def test_a_part_that_fails_keeps_what_it_measured_and_fails_the_run(check, part, tmp_path):
    _, text, good = _ran(check, tmp_path, [part("step", "sys.exit(3)", goals={"d20 step": 390.0})])
    assert "| d20 step | 390 | at most 385 ms | MISSED |" in text
    assert "ended with status 3" in text
    assert not good


def test_a_part_that_hangs_is_ended_with_all_that_it_started(check, part, tmp_path):
    then = "subprocess.Popen(['sleep', '987']); time.sleep(600)"
    outcomes, _, good = _ran(check, tmp_path, [part("step", then)], seconds=3)
    assert outcomes[0].fault == "did not end within 3 s"
    assert not good
    sleepers = [p for p in Path("/proc").glob("[0-9]*/cmdline") if _reads(p) == "sleep\0987\0"]
    assert sleepers == []


def test_a_part_that_leaves_no_file_has_failed(check, tmp_path):
    (tmp_path / "step.json").write_text("an earlier run's")
    silent = check.Part(name="step", arguments=("-c", "pass"), weight=1, least_s=0)
    outcomes, _, good = _ran(check, tmp_path, [silent])
    assert outcomes[0].fault == "left no step.json"
    assert not good


def test_a_goal_that_is_missed_is_no_failure(check, tmp_path):
    done = Measurement("kernels", tmp_path, {"device": "none"})
    for goal in goals_of("kernels"):
        done.set_goal(goal.name, goal.limit)
    done.set_goal("attention forward", 1.0)
    text, good = check.summary([check.Outcome("kernels", 1.0)], tmp_path)
    assert (text.count("| met |"), text.count("| MISSED |")) == (len(goals_of("kernels")) - 1, 1)
    assert good


def _reads(path):
    try:
        return path.read_text()
    except OSError:
        return ""
