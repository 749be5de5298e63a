"""Checks and times the contenders of each op, and keeps rows, checks and goals.

A contender whose numbers are wrong is not timed; where it is ours, a check has failed. Backward alone is the
difference of both directions and forward, the same for each contender. Forward of the loss is without
gradients, as in an evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.bench.contenders import COMPILED, COMPILING_S, OURS, Contender, UnavailableError
from kernels.bench.ledger import Run, free, reason_of
from kernels.bench.numbers import largest_error
from kernels.bench.ops import OPS, Op
from kernels.bench.shapes import BACKWARD, BOTH, FORWARD, LoadShape
from kernels.timing import Times, measure

# Loose: bfloat16 rounds to 0.4 %, a few times in each of them; a wrong mask, scale or cap is far more.
_LIMIT = 0.03
_Times = dict[str, Times]  # by direction


class WrongError(Exception):
    """Raised where a contender computes something else."""


def compare(run: Run) -> None:
    """Time all ops: those of the first shape, then of the others, then what is slow."""
    for late in (False, True):
        for shape in run.shapes:
            for name in OPS:
                _compare_op(run, name, shape, late)


def _compare_op(run: Run, name: str, shape: LoadShape, late: bool) -> None:
    if run.left_s < 0:
        run.add_reason(name, shape.name, "slow contenders" if late else "all", "left out: no time left")
        return
    try:
        op = OPS[name](shape, run.device, run.compiler_for(name))
    except torch.OutOfMemoryError as error:
        run.add_reason(name, shape.name, "all", reason_of(error))
        return
    found: dict[str, _Times] = {}
    for contender in op.contenders:
        if late == _is_late(run, contender, shape):
            found[contender.name] = _compare_one(run, op, shape, contender)
            if shape == run.shapes[0]:
                _set_goals(run, op, found)
            free(run.device)


def _is_late(run: Run, contender: Contender, shape: LoadShape) -> bool:
    """Return whether a contender's turn is after everyone's at all shapes: so is what compiles, but once."""
    return contender.late or (contender.set_up_s >= COMPILING_S and shape != run.shapes[0])


def _compare_one(run: Run, op: Op, shape: LoadShape, contender: Contender) -> _Times:
    """Check and time one contender; return its times by direction."""
    ours, times = contender.name == OURS, _Times()
    if ours and (broken := run.broken.intersection(op.kernels)):
        # The choice has a failed check for it.
        run.add_reason(op.name, shape.name, OURS, f"no right configuration of {', '.join(sorted(broken))}")
        return times
    if run.left_s < contender.set_up_s:
        run.add_reason(op.name, shape.name, contender.name, f"left out: {max(run.left_s, 0):.0f} s left")
        return times
    reason = ""
    try:
        for direction, took in _directions(run, op, contender):
            times[direction] = took
            run.add_times(op.name, shape.name, contender.name, direction, took, op.costs[direction])
    except UnavailableError as unavailable:
        reason = str(unavailable)
    except Exception as failure:  # other people's code raises anything, and others are still to be timed
        reason = reason_of(failure)
    if ours:
        name = f"{op.name}, {shape.name}: computes what its definition does"
        run.part.add_check(name, not reason, reason)
    if reason:
        run.add_reason(op.name, shape.name, contender.name, reason)
    return times


def _directions(run: Run, op: Op, contender: Contender) -> Iterator[tuple[str, Times]]:
    """Check and time one direction after the other, so that what fails in one keeps the other's time."""
    call = contender.make(op.inputs)

    def forward() -> Tensor:
        with torch.set_grad_enabled(op.trains):
            return call()

    def both() -> tuple[Tensor, ...]:
        out = call()
        return (out, *torch.autograd.grad(out, op.leaves, op.upstream.to(out.dtype)))

    products = contender.both and contender.both(op.inputs)
    if not products:
        _check(op, (forward(),))
    alone = measure(forward, run.device, repeats=run.repeats)
    yield FORWARD, alone
    if not products:
        _check(op, both())
    together = measure(products or both, run.device, repeats=run.repeats)
    yield BOTH, together
    if op.trains and together.median > alone.median:  # not so only where a machine has other work
        low, high = together.low - alone.high, together.high - alone.low
        yield BACKWARD, Times(together.median - alone.median, low, high, together.peak_gib)


def _check(op: Op, results: tuple[Tensor, ...]) -> None:
    error = largest_error([op.part(x) for x in results], op.truth[: len(results)])
    if not error <= _LIMIT:
        raise WrongError(f"relative error {error:.2g}, limit {_LIMIT}")


def _set_goals(run: Run, op: Op, found: dict[str, _Times]) -> None:
    """Set the goals whose numbers are there."""
    ours, compiled = found.get(OURS, {}), found.get(COMPILED, {})
    if op.name == "attention":
        for direction in (FORWARD, BACKWARD):
            if direction in ours:
                run.part.set_goal(f"attention {direction}", _tflops(op, direction, ours))
    elif BOTH in ours and op.name == "linear_cross_entropy":
        run.part.set_goal("linear_cross_entropy", _tflops(op, BOTH, ours))
        run.part.set_goal("linear_cross_entropy memory", ours[BOTH].peak_gib)
    elif BOTH in ours and BOTH in compiled:
        run.part.set_goal(f"{op.name} against torch.compile", compiled[BOTH].median / ours[BOTH].median)


def _tflops(op: Op, direction: str, times: _Times) -> float:
    return op.costs[direction].flops / times[direction].median / 1e9
