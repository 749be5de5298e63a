"""Each op gives the same bytes each time, forward and backward: an error that moves is a race."""

from __future__ import annotations

import pytest

from tests.gpu.operations import CASES, SCALES, different, run

_REPEATS = 20


@pytest.mark.parametrize("case", [case for case in CASES if case.repeated], ids=str)
def test_an_op_gives_the_same_bytes_each_time(case, device, sizes):
    problem = case.draw(device, SCALES[sizes])
    first = run(problem.ours, problem)
    for _ in range(_REPEATS):
        assert not different(first, run(problem.ours, problem), "when it is repeated")
