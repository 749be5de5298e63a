"""A trial of one variant of one kernel: are its numbers right, and how long does it take?

It is compared with the definition in float64, on a slice. A second call has to give the same bytes, which a
race would change; the first call's results are filled with NaN before it and it then gets their memory, so
that what a kernel does not write is seen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from kernels import configs
from kernels.bench.ledger import reason_of
from kernels.bench.numbers import largest_error
from kernels.bench.shapes import Cost
from kernels.bench.subjects import Subject
from kernels.configs import Row
from kernels.timing import Times, measure, measure_kernel

_LIMIT = 0.02  # bfloat16 rounds to 0.4 %, a few times on the way


class Trial(NamedTuple):
    """One variant of one row."""

    row: Row
    variant: str


class TrialOutcome(NamedTuple):
    """How a trial went: times and costs by what was timed, or why there are none."""

    trial: Trial
    times: dict[str, tuple[Times, Cost]]
    reason: str = ""


CALL, KERNEL = "call", "kernel"  # what is timed: all that a call launches; the kernel's own launches in it


def attempt(trial: Trial, subject: Subject, device: str, repeats: int) -> TrialOutcome:
    """Check and time a variant; an exception becomes the reason."""
    try:
        with configs.trying(**{trial.row.kernel: trial.variant}):
            if reason := _fault(subject):
                return TrialOutcome(trial, {}, reason)
            return TrialOutcome(trial, _timed(trial.row, subject, device, repeats))
    except Exception as error:  # whatever a compiler or a driver raises
        return TrialOutcome(trial, {}, reason_of(error))


def _timed(row: Row, subject: Subject, device: str, repeats: int) -> dict[str, tuple[Times, Cost]]:
    times = {CALL: (measure(subject.timed or subject.call, device, repeats=repeats), subject.cost)}
    if device == "cuda" and subject.own is not None:
        own = measure_kernel(subject.call, row.kernel, repeats=repeats)
        if own is not None:
            times[KERNEL] = own, subject.own
    return times


def _fault(subject: Subject) -> str:
    """Return what is wrong with the numbers; empty where nothing is."""
    results = subject.call()
    error = largest_error(subject.part(results), subject.truth)
    if not error <= _LIMIT:
        return f"wrong: relative error {error:.2g}, limit {_LIMIT}"
    first = [result.clone() for result in results]
    for result in results:
        result.fill_(float("nan"))
    del results, result
    second = subject.call()
    if not all(bool(result.isfinite().all()) for result in second):
        return "wrong: not every number is written, or some are not finite"
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        return "wrong: a second call gives other bytes"
    return ""
