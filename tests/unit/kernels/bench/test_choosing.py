"""Which variants are tried, what a broken one costs, and which is chosen."""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import threading
import time
from pathlib import Path

import pytest
import torch

from kernels import chosen, configs
from kernels.bench import choosing
from kernels.bench.ledger import Run
from kernels.bench.shapes import TINY, Cost
from kernels.bench.subjects import SUBJECTS
from kernels.bench.trials import CALL, Trial, TrialOutcome
from kernels.configs import BASE, KernelConfig, row_for
from kernels.measurement import Measurement
from kernels.timing import Times

FORWARD = row_for("attention_forward", torch.bfloat16, "head_dim=128", arch=90)
UP = row_for("relu_squared_up", torch.bfloat16, arch=90)


@pytest.fixture
def variants(monkeypatch):
    base = configs.TABLE[FORWARD]
    names = ("wide", "gluon")
    others = tuple(KernelConfig(base.num_warps, 2, base.tiles, name=name) for name in names)
    monkeypatch.setattr(configs, "VARIANTS", {FORWARD: others})


@pytest.fixture
def run(tmp_path):
    options = argparse.Namespace(device="cpu", results=tmp_path)
    return Run(
        Measurement.start("kernels", options),
        "cpu",
        (TINY,),
        time.monotonic() + 60,
        lambda op: None,
        repeats=1,
    )


def took(median, low=None):
    return Times(median, median if low is None else low, 2 * median, 0.0)


def outcome(trial, median):
    return TrialOutcome(trial, {CALL: (took(median), Cost(1.0, 1.0))})


def test_every_kernel_of_the_table_is_tried():
    assert set(SUBJECTS) == {row.kernel for row in configs.TABLE}


def test_a_rows_own_configuration_is_tried_first_and_what_may_hang_last_of_its_kind(variants):
    trials = choosing.all_trials(90)
    of_forward = [trial for trial in trials if trial.row == FORWARD]
    assert [trial.variant for trial in of_forward] == [BASE, "wide", "gluon"]
    attention = [trial for trial in trials if trial.row.kernel.startswith("attention")]
    assert trials[: len(attention)] == attention
    assert attention[-1].variant == "gluon"
    assert {trial.row for trial in trials} >= {UP, FORWARD}


@pytest.mark.parametrize(
    ("times", "name"),
    [
        ({BASE: took(100.0), "wide": took(97.0)}, "wide"),
        ({BASE: took(100.0), "wide": took(98.5)}, BASE),  # within the margin
        ({BASE: took(100.0, low=96.0), "wide": took(97.0)}, BASE),  # within the spread
        ({"wide": took(150.0), "other": took(140.0)}, "other"),  # the row's own is wrong
        ({}, None),
    ],
)
def test_a_variant_has_to_win_by_more_than_margin_and_spread(times, name):
    assert choosing.decide(times, 0.02) == name


def test_the_written_file_holds_what_was_chosen_and_is_formatted(tmp_path):
    file = tmp_path / "new/chosen.py"
    choosing.write_chosen(file, {FORWARD: "wide", UP: "deep"})
    text = file.read_text()
    (assigned,) = (node for node in ast.parse(text).body if isinstance(node, ast.AnnAssign))
    assert ast.literal_eval(assigned.value) == {tuple(FORWARD): "wide", tuple(UP): "deep"}
    assert '\n    (90, "attention_forward", "head_dim=128", 16): "wide",\n' in text
    choosing.write_chosen(file, dict(chosen.CHOSEN))
    assert file.read_text() == Path(chosen.__file__).read_text()


class _Thread:
    """A process as the trials see one, that ends as `script` says: an outcome, "dies" or "hangs" a trial."""

    exitcode = 3

    def __init__(self, script):
        self.ours, self.theirs = multiprocessing.Pipe()
        self._thread = threading.Thread(target=self._work, args=(script,))
        self._thread.start()

    def _work(self, script):
        self.theirs.send("started")
        for step in script:
            if step == "hangs":
                return
            if step == "dies":
                break
            self.theirs.send(step)
        self.theirs.close()

    def kill(self):
        self._thread.join()

    def join(self, timeout=None):
        pass


@pytest.fixture
def scripted(monkeypatch):
    """Replace processes by threads, which take what they do with each trial from a table."""
    started = []

    def start(behaviour):
        def start_thread(work):
            trials = work[0]
            started.append([trial.variant for trial in trials])
            thread = _Thread([behaviour[trial] for trial in trials])
            return thread, thread.ours

        monkeypatch.setattr(choosing, "_start", start_thread)
        monkeypatch.setattr(choosing, "_TRIAL_S", 0.2)
        return started

    return start


def _reasons(run, trials):
    found = list(choosing._outcomes(run, trials, run.end))
    assert [o.trial for o in found] == trials
    return [o.reason for o in found]


def test_a_variant_that_ends_its_process_costs_no_other_its_trial(run, scripted):
    trials = [Trial(FORWARD, name) for name in (BASE, "wide", "deep")]
    started = scripted({t: "dies" if t.variant == "wide" else outcome(t, 1.0) for t in trials})
    assert _reasons(run, trials) == ["", "its process ended with status 3", ""]
    assert started == [[BASE, "wide", "deep"], ["deep"]]


def test_a_fault_that_ends_the_device_is_not_blamed_on_the_next_variant(run, scripted):
    trials = [Trial(FORWARD, name) for name in (BASE, "wide", "deep")]
    behaviour = {t: outcome(t, 1.0) for t in trials}
    behaviour[trials[0]] = TrialOutcome(trials[0], {}, "illegal address")
    started = scripted(behaviour)
    original = choosing._start

    def first_dies(work):
        if len(work[0]) == 3:
            behaviour_of_wide, behaviour[trials[1]] = behaviour[trials[1]], "dies"
            found = original(work)
            behaviour[trials[1]] = behaviour_of_wide
            return found
        return original(work)

    choosing._start = first_dies  # undone with the fixture's replacement
    assert _reasons(run, trials) == ["illegal address", "", ""]
    assert started == [[BASE, "wide", "deep"], ["wide", "deep"]]


def test_a_variant_that_hangs_is_not_tried_at_other_shapes(run, scripted):
    trials = [Trial(FORWARD, "gluon"), Trial(UP, BASE), Trial(UP, "gluon")]
    scripted({trials[0]: "hangs", trials[1]: outcome(trials[1], 1.0), trials[2]: "dies"})
    reasons = [o.reason for o in sorted(choosing._outcomes(run, trials, run.end), key=lambda o: o.trial)]
    assert sorted(reasons) == ["", choosing._HUNG, "left out: it hung elsewhere"]


def test_trials_without_time_are_left_out_and_an_earlier_choice_stays(run, monkeypatch):
    monkeypatch.setitem(chosen.CHOSEN, FORWARD, "wide")
    trials = [Trial(FORWARD, BASE), Trial(FORWARD, "wide")]
    found = list(choosing._outcomes(run, trials, time.monotonic() - 1))
    assert all(o.reason.startswith("left out") for o in found)
    assert choosing._decide(run, FORWARD, [outcome(trials[0], 1.0), found[1]]) == "wide"
    assert run.broken == set()


def test_a_kernel_without_a_right_configuration_is_a_failed_check_and_broken(run):
    wrong = TrialOutcome(Trial(FORWARD, BASE), {}, "wrong: relative error 1")
    choosing._keep(run, wrong)
    assert choosing._decide(run, FORWARD, [wrong]) == BASE
    assert len(run.part.wrong) == 1
    assert run.broken == {"attention_forward"}


def test_all_variants_are_compiled_ahead_but_those_that_may_hang(run, variants, monkeypatch):
    given = []

    class Ended:
        def join(self, timeout=None):
            pass

        kill = close = join

    monkeypatch.setattr(choosing, "_start", lambda work: (given.extend(work[0]), (Ended(), Ended()))[1])
    trials = choosing.all_trials(90)
    choosing._compile_ahead(run, trials, run.end)
    assert sorted(given) == sorted(trial for trial in trials if trial.variant != "gluon")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_a_gpu_rewrites_the_choice_and_both_keep_a_copy(device, run, scripted, monkeypatch, tmp_path):
    trials = [Trial(FORWARD, BASE), Trial(FORWARD, "wide")]
    scripted({trials[0]: outcome(trials[0], 2.0), trials[1]: outcome(trials[1], 1.0)})
    source = tmp_path / "source.py"
    source.write_text(Path(chosen.__file__).read_text())
    monkeypatch.setattr(chosen, "__file__", str(source))
    monkeypatch.setattr(chosen, "CHOSEN", {})
    monkeypatch.setattr(choosing, "all_trials", lambda arch: trials)
    monkeypatch.setattr(choosing, "_compile_ahead", lambda run, trials, end: None)
    run.device = device
    choosing.choose(run)
    assert chosen.CHOSEN == {FORWARD: "wide"}
    assert '"wide"' in (tmp_path / "chosen.txt").read_text()
    assert ('"wide"' in source.read_text()) == (device == "cuda")
    assert [row["reason"] for row in run.part.rows if row["op"] == "chosen"] == ["takes 0.500 of base's time"]
    assert run.part.wrong == []
