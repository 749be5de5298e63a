"""Times each op on a GPU against plain, compiled and other people's versions: `python -m kernels.bench`.

Rows, checks and goals are in `kernels.json` as soon as they are known; tables come last on stdout. First the
card's own limits; with --choose, then, which variant of each kernel is the fastest; then the ops. What does
not fit into --seconds is a row with that reason. The exit status is 1 where a number was wrong. Without a GPU
it reports that and exits; `--device cpu --sizes tiny` runs every line that a CPU can.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from kernels import measurement
from kernels.bench.ceilings import measure_ceilings, note_clock
from kernels.bench.choosing import choose
from kernels.bench.comparison import compare
from kernels.bench.ledger import Compile, DeviceLostError, Run, free
from kernels.bench.listing import tables
from kernels.bench.shapes import SHAPES
from kernels.measurement import Measurement

_COMPILED_IN_A_DRY_RUN = "qk_norm_rotary"
_REPEATS = {"full": 20, "tiny": 3}


def main(arguments: Sequence[str] | None = None) -> int:
    """Time as the command line says; return the exit status."""
    parser = measurement.arguments(__doc__)
    parser.add_argument(
        "--choose", action="store_true", help="try all variants and rewrite kernels/chosen.py"
    )
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("kernels.bench: no CUDA device here, so nothing is timed (counts: python -m kernels.roofline)")
        return 0
    if options.device == "cpu":  # a dry run, maybe beside other work: its threads would wait for each other
        torch.set_num_threads(1)
    run = start(options)
    carry_out(run, options)
    print(tables(run.part.rows))
    for name in run.part.wrong:
        print(f"WRONG: {name}")
    print(f"wrote {run.part.path}")
    return 1 if run.part.wrong else 0


def start(options: argparse.Namespace) -> Run:
    """Return a run as the command line says."""
    tiny, on_cpu = options.sizes == "tiny", options.device == "cpu"

    def compiler_for(op: str) -> Compile | None:
        return None if tiny and on_cpu and op != _COMPILED_IN_A_DRY_RUN else torch_compile

    return Run(
        Measurement.start("kernels", options),
        options.device,
        SHAPES[options.sizes],
        time.monotonic() + options.seconds,
        compiler_for,
        _REPEATS[options.sizes],
    )


def torch_compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for the very shapes of a call."""
    return torch.compile(function, dynamic=False)


def carry_out(run: Run, options: argparse.Namespace) -> None:
    """Run all parts; a device that is lost ends them."""
    try:
        note_clock(run, "before")
        measure_ceilings(run, options.sizes)
        free(run.device)
        if options.choose:
            choose(run)
        compare(run)
        note_clock(run, "after")
    except DeviceLostError as error:
        run.part.add_check("the device answers to the end", False, str(error))


if __name__ == "__main__":
    sys.exit(main())
