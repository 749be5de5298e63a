"""What the compiler makes of the warp-specialized forward kernel, beyond the gate of `test_machine_code`."""

from __future__ import annotations

import re

import pytest
import torch

from kernels import configs
from kernels.attention.gpu import launch_forward
from tests.support.kernels.fake_driver import dry_run
from tests.support.kernels.launches import meta
from tests.support.kernels.machine_code import disassemble, faults, inspect


def _launch(rows, length, heads, dim, dtype=torch.bfloat16):
    q = meta(rows, length, heads, dim, dtype=dtype)
    with configs.trying(attention_forward="gluon"), dry_run() as launches:
        launch_forward(q, q, q, None, None, 0.1)
    return launches[0]


@pytest.fixture(scope="module")
def kernel():
    return _launch(32, 2048, 10, 128).kernel


# What a PTX line does, as far as warps must meet for it.
_EVENTS = {
    "meet": r"bar\.sync|bar\.warp\.sync",
    "wait": r"mbarrier\.try_wait",
    "arrive": r"mbarrier\.arrive",
    "product": r"wgmma\.mma_async",
    "store": r"stmatrix|st\.shared",
    "fence": r"fence\.proxy\.async",
    "copy out": r"cp\.async\.bulk\.tensor.*global\.shared",
    "copied out": r"cp\.async\.bulk\.wait_group",
}


def _events(kernel):
    """Return what happens in the order of the code, repetitions once."""
    found = [
        name
        for line in kernel.asm["ptx"].splitlines()
        if "//" not in line
        for name, pattern in _EVENTS.items()
        if re.search(pattern, line)
    ]
    return [event for i, event in enumerate(found) if i == 0 or event != found[i - 1]]


def test_all_warps_of_a_partition_meet_before_one_of_them_signals_for_all(kernel):
    # Else a barrier could go through two phases while a slow warp still waits for the first of them.
    events = _events(kernel)
    before = {events[i - 1] for i, event in enumerate(events) if event == "arrive"}
    assert before == {"meet"}


def test_outputs_are_stored_fenced_and_complete_when_one_warp_sends_them(kernel):
    events = _events(kernel)
    sent = [i for i, event in enumerate(events) if event == "copy out"]
    assert len(sent) == 2  # one in each consumer
    for i in sent:
        assert events[i - 5 : i] == ["copied out", "meet", "store", "fence", "meet"]


def test_exponentials_run_beside_the_product_with_the_values(kernel):
    """Between the wait for the scores and that for the outputs, in the loop of each consumer."""
    names = re.findall(
        r"(MUFU\.EX2|WARPGROUP\.DEPBAR\.LE gsb0, 0x\d|USETMAXREG\S*\s.*?0x\w+)", disassemble(kernel)
    )
    loops = [i for i, name in enumerate(names) if name.endswith("gsb0, 0x1")]
    assert len(loops) == 2
    for i in loops:
        end = next(j for j in range(i + 1, len(names)) if names[j].startswith("WARPGROUP"))
        assert names[end].endswith("gsb0, 0x0")
        assert (
            names[i + 1 : end].count("MUFU.EX2") == 128 * 64 // 128 + 2
        )  # scores of a thread, two rows' maxima


def test_consumers_have_240_registers_and_producers_24(kernel):
    sizes = {int(size, 16) for size in re.findall(r"USETMAXREG\S*\s.*?(0x\w+)", disassemble(kernel))}
    assert {24, 240} <= sizes
    assert inspect(kernel).registers * 3 == 240 + 240 + 24  # of three groups of four warps, at the launch


@pytest.mark.parametrize(("rows", "heads", "programs"), [(32, 10, 132), (1, 10, 80)])
def test_as_many_programs_run_as_have_work_and_a_place(rows, heads, programs):
    assert _launch(rows, 2048, heads, 128).grid == (programs, 1, 1)


@pytest.mark.parametrize("dim", [64, 128])
def test_a_length_that_is_no_multiple_of_16_and_float16_are_without_fault(dim):
    launch = _launch(2, 301, 5, dim, torch.float16)
    assert launch.grid == (20, 1, 1)  # two pairs of tiles a head: 2 with 0, and 1 alone
    assert faults(inspect(launch.kernel), tensor_core=True, tma=True) == []


def test_windows_documents_and_shared_keys_stay_with_plain_triton():
    rows = [row for row, variants in configs.VARIANTS.items() if any(config.gluon for config in variants)]
    assert {row.shape for row in rows} == {"head_dim=64", "head_dim=128"}
    assert not any(config.gluon for config in configs.TABLE.values())
