"""What is compiled ahead of the tests on a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.gpu.compile_ahead import launch, make_launchers
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


@pytest.mark.parametrize("old", [True, False])
def test_what_launches_a_kernel_is_made_once_where_it_is_compiled(old, monkeypatch):
    driver = pytest.importorskip("triton.backends.nvidia.driver")
    made = []
    monkeypatch.setattr(driver, "CudaLauncher", lambda src, metadata: made.append((src, metadata)))
    if old:
        monkeypatch.setattr(driver, "make_launcher", None, raising=False)
    else:
        monkeypatch.delattr(driver, "make_launcher", raising=False)
    one, two = (SimpleNamespace(src=f"source {n}", metadata=n) for n in (1, 2))
    make_launchers([SimpleNamespace(kernel=kernel) for kernel in (one, two, one)])
    assert made == ([("source 1", 1), ("source 2", 2)] if old else [])
