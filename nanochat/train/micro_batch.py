"""Whether a training pass fits into memory, found out before the first step instead of somewhere in the run.

`fitting_cut` sends the largest pass of the run once forward and backward through the model and throws the
gradients away: nothing is drawn, updated or sent to other ranks. It costs less than the largest step, which
holds at least one such pass. Where the user did not set how many rows a pass has, it is halved until it fits,
so the same model on the same hardware is cut in the same way. A system that kills processes instead of
refusing them memory (Linux, for a CPU's) cannot be asked in this way.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import numpy as np
import torch

from nanochat.errors import TrainingError
from nanochat.model.gpt import GPT
from nanochat.train.loop import Cut, TrainingPlan, accumulate_gradients
from nanochat.train.state import TrainState

logger = logging.getLogger(__name__)
_CPU_MESSAGE = "can't allocate memory"  # what torch writes in a plain RuntimeError


def fitting_cut(state: TrainState, plan: TrainingPlan, rows: int | None = None) -> Cut:
    """Return the cut for a run whose passes are to have `rows` rows, or as many as fit.

    All ranks call this together and get the same. Raises TrainingError saying how many rows do fit.
    """
    asked = Cut(rows=rows)
    most = -(-plan.batch_rows // state.world.size)
    tried = max(1, min(most, asked.rows_of(plan.longest, state.model.device.type)))
    fit = int(min(fit for (fit,) in state.world.gather(_rows_that_fit(state.passes, tried, plan.longest))))
    if fit == tried:
        return asked
    if not fit:
        raise TrainingError(
            f"out of memory: a pass of one row x {plan.longest} tokens does not fit on {state.model.device}",
            hint="choose a smaller depth or sequence length, or a device with more memory",
        )
    if rows is not None:
        raise _too_large(state, tried, plan.longest, fit)
    logger.warning("passes of %d rows x %d tokens: more do not fit on the device", fit, plan.longest)
    return Cut(tokens=fit * plan.longest)


@contextlib.contextmanager
def out_of_memory_explained(state: TrainState, plan: TrainingPlan, cut: Cut) -> Iterator[None]:
    """Explain an allocation that failed after all, in some step, and what to try instead."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        rows = min(plan.batch_rows, cut.rows_of(plan.longest, state.model.device.type))
        raise _too_large(state, rows, plan.longest, max(1, rows // 2)) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a refused allocation."""
    return isinstance(error, torch.OutOfMemoryError) or _CPU_MESSAGE in str(error)


def _rows_that_fit(model: GPT, rows: int, length: int) -> int:
    while rows and not _fits(model, rows, length):
        rows //= 2
    return rows


def _fits(model: GPT, rows: int, length: int) -> bool:
    tokens = np.zeros((rows, length), np.int64)
    fits = True
    try:
        accumulate_gradients(model, tokens, tokens, Cut(rows=rows))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    # Not inside the handler: the error still holds on to what the pass had allocated.
    model.zero_grad(set_to_none=True)
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    return fits


def _too_large(state: TrainState, rows: int, length: int, fit: int) -> TrainingError:
    return TrainingError(
        f"out of memory in step {state.step + 1} on {state.world}: a pass of {rows} rows x {length} tokens"
        f" is too large for {state.model.device}",
        hint=f"use --micro-batch-rows {fit}" if fit < rows else "choose a smaller depth or sequence length",
    )
