"""Every op forward and backward against float64 on the device, at the sizes of d20 and at odd ones."""

from __future__ import annotations

import pytest

from tests.gpu.operations import CASES, SCALES, faults


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_op_is_right(case, device, sizes):
    wrong = faults(case.draw(device, SCALES[sizes]))
    assert not wrong, "; ".join(wrong)
