"""Every variant of a kernel's configuration: none is to be chosen for its speed before it is right."""

from __future__ import annotations

import pytest
import torch

from kernels import configs
from tests.gpu.operations import CASES, SCALES, different, faults, run, variants

_DTYPES = {16: torch.bfloat16, 32: torch.float32}  # float16 would compile the same once more
_REPEATS = 5


def _id(row, name):
    return f"{row.kernel}, {row.shape}, {row.bits} bits, sm_{row.arch}, {name}"


@pytest.mark.parametrize(("row", "name"), [pytest.param(*v, id=_id(*v)) for v in variants()])
def test_a_variant_is_right_and_gives_the_same_bytes(row, name, device, sizes):
    dtype = _DTYPES[row.bits]
    if device == "cuda" and configs.row_for(row.kernel, dtype, row.shape) != row:
        pytest.skip("this device uses another row")
    cases = [case for case in CASES if case.uses(row) and case.dtype == dtype]
    assert cases, f"no case of tests.gpu.operations uses {row}"
    wrong = []
    with configs.trying(**{row.kernel: name}):
        assert device == "cpu" or configs.find(row.kernel, dtype, row.shape).name == name
        for case in cases:
            problem = case.draw(device, SCALES[sizes])
            found = faults(problem)
            first = run(problem.ours, problem)
            for _ in range(_REPEATS):
                found += different(first, run(problem.ours, problem), "when it is repeated")
            wrong += [f"{case}: {fault}" for fault in dict.fromkeys(found)]
    assert not wrong, "; ".join(wrong)
