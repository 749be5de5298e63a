"""Which variant of each kernel's configuration is the fastest here; what is found goes into `kernels.chosen`.

Trials run in a process of their own: a variant that hangs, or whose fault ends all work on the device, costs
that process, and another one goes on with the next variant. Before that, several processes compile all
variants, which is most of the time. A variant has to be right and to win clearly, or the row's own
configuration stays; one that is wrong is a row with its reason, and a check fails where the row's own is.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing import ProcessError
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from kernels import chosen, configs
from kernels.bench.ledger import Run, free, reason_of
from kernels.bench.shapes import LoadShape
from kernels.bench.subjects import SUBJECTS, Subject
from kernels.bench.trials import CALL, Trial, TrialOutcome, attempt
from kernels.configs import BASE, Row
from kernels.timing import Times

# Repeated medians differ by half a percent. The kernels of attention's backward pass are timed in one call,
# of which each is about half.
_MARGIN, _MARGIN_IN_PART = 0.02, 0.01
_SHARE = 0.45  # of the time that is left, for all trials
_START_S, _TRIAL_S = 60.0, 30.0  # a process's first sign of life; one trial, with what it compiles
_HUNG = f"did not end within {_TRIAL_S:.0f} s"
_COMPILING = 8  # processes at a time, each with one subject on the device
_LEFT_OUT = "left out"
_DRY_RUN_ARCH = 90  # without a device: choose for an H100

_Names = dict[tuple[int, str, str, int], str]
_Work = tuple[list[Trial], LoadShape, str, int]


def choose(run: Run) -> None:
    """Try all variants, keep rows and checks, and make the best ones those that the ops use."""
    end = time.monotonic() + _SHARE * run.left_s
    trials = all_trials(None if run.device == "cuda" else _DRY_RUN_ARCH)
    if run.device == "cuda":
        _compile_ahead(run, trials, end)
    outcomes: dict[Row, list[TrialOutcome]] = {}
    try:
        for outcome in _outcomes(run, trials, end):
            _keep(run, outcome)
            outcomes.setdefault(outcome.trial.row, []).append(outcome)
    except ProcessError as error:
        run.part.add_check("choose: processes start", False, str(error))
    found: _Names = dict(chosen.CHOSEN)
    for row, tried in outcomes.items():
        found[row] = _decide(run, row, tried)
        if found[row] == BASE:
            del found[row]
    chosen.CHOSEN.clear()
    chosen.CHOSEN.update(found)
    write_chosen(run.part.folder / "chosen.txt", found)
    if run.device == "cuda":
        write_chosen(Path(chosen.__file__), found)


def all_trials(arch: int | None = None) -> list[Trial]:
    """Return the trials of a device, what matters most first, and last of their kind those that may hang."""
    shapes = sorted({row.shape for row in configs.TABLE}, key=lambda shape: ("64" in shape, shape))
    trials = []
    for kernel in SUBJECTS:
        for shape in shapes:
            if any(row.kernel == kernel and row.shape == shape and row.bits == 16 for row in configs.TABLE):
                row = configs.row_for(kernel, torch.bfloat16, shape, arch)
                trials += [Trial(row, config.name) for config in configs.candidates(row)]
    return sorted(trials, key=lambda trial: (_family(trial), _may_hang(trial), _class(trial, shapes)))


def _family(trial: Trial) -> bool:
    return not trial.row.kernel.startswith("attention")


def _may_hang(trial: Trial) -> bool:
    return "gluon" in trial.variant  # its warps wait for each other


def _class(trial: Trial, shapes: list[str]) -> int:
    return shapes.index(trial.row.shape)


def _outcomes(run: Run, trials: list[Trial], end: float) -> Iterator[TrialOutcome]:
    """Yield how each trial went; start a new process after one that had to end."""
    left, hung = list(trials), set[str]()
    while left:
        if time.monotonic() > end:
            yield from (TrialOutcome(trial, {}, f"{_LEFT_OUT}: no time left for trials") for trial in left)
            return
        went = 0
        for outcome in _in_a_process(run, left, end):
            yield outcome
            went += 1
            if outcome.reason == _HUNG:
                hung.add(outcome.trial.variant)
        left = left[went:]
        skipped = [trial for trial in left if trial.variant in hung - {BASE}]
        yield from (TrialOutcome(trial, {}, f"{_LEFT_OUT}: it hung elsewhere") for trial in skipped)
        left = [trial for trial in left if trial not in skipped]


def _in_a_process(run: Run, trials: list[Trial], end: float) -> Iterator[TrialOutcome]:
    """Yield outcomes until the trials, the time or the process end; the one that ends it is among them."""
    process, ours = _start((trials, run.shapes[0], run.device, run.repeats))
    try:
        if not ours.poll(_START_S) or not _received(ours):
            raise ProcessError(f"a process for trials did not start within {_START_S:.0f} s")
        failed = False
        for trial in trials:
            if time.monotonic() > end:
                return
            if not ours.poll(_TRIAL_S):
                yield TrialOutcome(trial, {}, _HUNG)
                return
            outcome = _received(ours)
            if outcome is None and failed:
                return  # by the trial before, whose fault ended the device's work
            if outcome is None:
                process.join(5)
                yield TrialOutcome(trial, {}, f"its process ended with status {process.exitcode}")
                return
            yield outcome
            failed = bool(outcome.reason)
    finally:
        process.kill()
        process.join()


def _received(connection: Connection) -> Any:
    """Return what a process has sent; None where it has ended."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return None


def _start(work: _Work) -> tuple[multiprocessing.context.SpawnProcess, Connection]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_try_all, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _try_all(connection: Connection, work: _Work) -> None:
    """Make trials in this process and send how each went; end where a fault has ended the device's work."""
    trials, shape, device, repeats = work
    if device == "cpu":
        torch.set_num_threads(1)
    connection.send("started")
    held: tuple[Row, Subject] | None = None
    for trial in trials:
        if held is None or held[0] != trial.row:
            held = None
            free(device)
            try:
                held = trial.row, SUBJECTS[trial.row.kernel](trial.row, shape, device)
            except Exception as error:  # of attention's forward kernel, which backward's trials start from
                connection.send(TrialOutcome(trial, {}, f"no inputs: {reason_of(error)}"))
                continue
        connection.send(attempt(trial, held[1], device, repeats))
        free(device)


def _compile_ahead(run: Run, trials: list[Trial], end: float) -> None:
    """Have processes side by side make each trial once, so that the compiled kernels are on disk.

    Not those that may hang: they would hold up the others.
    """
    trials = [trial for trial in trials if not _may_hang(trial)]
    count = min(_COMPILING, max((os.cpu_count() or 1) // 2, 1))
    run.say(f"compiling {len(trials)} variants in {count} processes")
    processes = [_start((trials[at::count], run.shapes[0], run.device, 1)) for at in range(count)]
    limit = time.monotonic() + (end - time.monotonic()) / 2
    for process, _ in processes:
        process.join(max(limit - time.monotonic(), 0.0))
    for process, connection in processes:
        process.kill()
        process.join()
        connection.close()


def _keep(run: Run, outcome: TrialOutcome) -> None:
    """Keep a trial as a row, and the check of a row's own configuration."""
    (row, variant), op = outcome.trial, f"choose: {outcome.trial.row.kernel}"
    if variant == BASE and not _is_left_out(outcome):
        name = f"{row.kernel}, {row.shape}: right by its definition, twice the same bytes"
        run.part.add_check(name, not outcome.reason, outcome.reason)
    if outcome.reason:
        run.add_reason(op, row.shape, variant, outcome.reason)
    for what, (times, cost) in outcome.times.items():
        run.add_times(op, row.shape, variant, what, times, cost)


def _decide(run: Run, row: Row, outcomes: list[TrialOutcome]) -> str:
    """Return the variant to use, and keep it as a row; an earlier choice that was left out stays."""
    times = {o.trial.variant: o.times[CALL][0] for o in outcomes if o.times}
    before = chosen.CHOSEN.get(row, BASE)
    left_out = {o.trial.variant for o in outcomes if _is_left_out(o)}
    name = decide(times, _MARGIN_IN_PART if row.kernel in ("attention_dq", "attention_dkv") else _MARGIN)
    if name is None and not left_out:
        run.broken.add(row.kernel)
    if name is None or before in left_out:
        return before
    if name == BASE:
        reason = f"the best of {len(times)}"
    elif BASE in times:
        reason = f"takes {times[name].median / times[BASE].median:.3f} of {BASE}'s time"
    else:
        reason = f"right, unlike {BASE}"
    run.add_reason("chosen", f"{row.kernel}, {row.shape}", name, reason)
    return name


def _is_left_out(outcome: TrialOutcome) -> bool:
    return outcome.reason.startswith(_LEFT_OUT)


def decide(times: dict[str, Times], margin: float) -> str | None:
    """Return the fastest of the right variants, but the row's own unless margin and spread are exceeded."""
    if not times:
        return None
    best = min(times, key=lambda name: times[name].median)
    base = times.get(BASE)
    if base is not None and times[best].median >= min((1 - margin) * base.median, base.low):
        return BASE
    return best


def write_chosen(path: Path, found: _Names) -> None:
    """Write `kernels.chosen` with these variants, in one step."""
    text = Path(chosen.__file__).read_text(encoding="utf-8")
    head = text[: text.index("CHOSEN:")]
    lines = [f"    ({', '.join(map(json.dumps, row))}): {json.dumps(found[row])},\n" for row in sorted(found)]
    entries = "{\n" + "".join(lines) + "}" if lines else "{}"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    fresh.write_text(f"{head}CHOSEN: dict[tuple[int, str, str, int], str] = {entries}\n", encoding="utf-8")
    fresh.replace(path)
