"""How long this machine's processor takes for a matrix product in each precision, measured on the spot.

bfloat16 is quick only on processors with instructions for it; which have them is not asked, but tried. What
is found here never changes what is computed.
"""

from __future__ import annotations

import time

import torch
from torch.nn import functional as F

from nanochat.model.reproducible import cpu_threads

PRECISIONS = ("float32", "bfloat16")
_BUDGET_S = 0.2  # of all products together, once each has run
_OPERATIONS = 2e8  # of one product: some milliseconds, where one of a wide model would take all of the budget
_WIDEST = 1024


def product_seconds(width: int) -> dict[str, float]:
    """Return the least CPU seconds of an MLP's first product in a model of this width, by precision.

    Its weights are float32 and converted each time, as in training. Of one thread's own time, since a wall
    clock and threads that wait for each other would measure what else a busy machine does.
    """
    width = min(width, _WIDEST)
    rows = max(64, int(_OPERATIONS / (2 * width * 4 * width)))
    x, weight = torch.ones(rows, width), torch.ones(4 * width, width)
    least = dict.fromkeys(PRECISIONS, float("inf"))
    with cpu_threads(1), torch.inference_mode():
        for name in PRECISIONS:
            _product(x, weight, name)  # the first one prepares what the others use
        end = time.thread_time() + _BUDGET_S
        while time.thread_time() < end or float("inf") in least.values():
            for name in PRECISIONS:  # in turns, for caches and clock rates to be alike
                start = time.thread_time()
                _product(x, weight, name)
                least[name] = min(least[name], time.thread_time() - start)
    return least


def _product(x: torch.Tensor, weight: torch.Tensor, precision: str) -> torch.Tensor:
    kind: torch.dtype = getattr(torch, precision)
    return F.linear(x.to(kind), weight.to(kind))
