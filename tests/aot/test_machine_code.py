"""Every row of the configuration table compiles to good machine code, and to no worse than is recorded."""

from __future__ import annotations

import pytest

from kernels import configs
from tests.support.kernels.launches import CASES
from tests.support.kernels.machine_code import faults
from tests.support.kernels.machine_code_table import compiled, recorded, variants_of, worse

COMMAND = "uv run python -m tests.support.kernels.machine_code_table"


def _design(kernel, variant, case):
    rows = [r for r in configs.TABLE if r[1:] == (kernel, case.shape, case.bits) and r.arch <= 90]
    return next(config for config in configs.candidates(max(rows)) if config.name == variant)


@pytest.mark.parametrize(
    ("case", "arch"), [(case, arch) for case in CASES for arch in case.arches], ids=lambda x: str(x)
)
def test_machine_code_has_no_fault_and_is_no_worse_than_recorded(case, arch):
    before = recorded()
    now = compiled(case, arch)
    expected = {(kernel, name) for kernel in case.kernels for name in variants_of(case, kernel, arch)}
    assert {key[1:3] for key in now} == expected
    for key, code in now.items():
        assert key in before, f"{key} is not recorded: {COMMAND}"
        assert worse(code, before[key]) == [], f"{key} (if this is meant: {COMMAND})"
        if arch == 90:
            design = _design(key[1], key[2], case)
            assert faults(code, tensor_core=design.tensor_core, tma=design.tma) == []


def test_every_row_of_the_table_is_compiled_by_some_case():
    tried = {(kernel, case.shape, case.bits) for case in CASES for kernel in case.kernels}
    assert {row[1:] for row in configs.TABLE} == tried


@pytest.mark.parametrize("version", ["3.6", "3.7"])
def test_every_kernel_is_recorded_for_every_architecture_and_triton(version):
    expected = {
        (str(arch), kernel, variant, case.name, case.shape, str(case.bits))
        for case in CASES
        for kernel in case.kernels
        for arch in (80, 89, 90, 100, 120)
        for variant in variants_of(case, kernel, arch)
    }
    assert set(recorded(version)) == expected


def test_16_bit_products_on_h100_are_designed_for_tensor_cores_and_tma():
    rows = [row for row in configs.TABLE if row.arch == 90 and row.bits == 16]
    assert rows
    assert all(config.tensor_core and config.tma for row in rows for config in configs.candidates(row))
