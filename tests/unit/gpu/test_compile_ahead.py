"""What is compiled ahead of the tests on a GPU."""

from __future__ import annotations

import pytest

from tests.gpu.compile_ahead import launch
from tests.gpu.operations import CASES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_compiled_ahead_is_each_kernel_of_the_op(case, monkeypatch):
    triton = pytest.importorskip("triton")
    from kernels import configs
    from tests.support.kernels.fake_driver import dry_run

    launched = []
    monkeypatch.setattr(
        triton.runtime.JITFunction, "run", lambda self, *_, **__: launched.append(self.__name__)
    )
    with dry_run(90):
        launch(case, "full")
    rows = {row.kernel for row in configs.TABLE if case.uses(row)}
    assert launched and {name.removeprefix("_").removesuffix("_kernel") for name in launched} <= rows
