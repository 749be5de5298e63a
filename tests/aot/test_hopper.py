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
def launch():
    return _launch(32, 2048, 10, 128)


@pytest.fixture(scope="module")
def kernel(launch):
    return launch.kernel


# What a PTX line does, as far as warps must meet for it.
_EVENTS = {
    "meet": r"bar\.sync|bar\.warp\.sync",
    "wait": r"mbarrier\.try_wait",
    "expect": r"mbarrier\.arrive\.expect_tx",
    "arrive": r"mbarrier\.arrive\.shared",
    "product": r"wgmma\.mma_async",
    "store": r"stmatrix|st\.shared",
    "fence": r"fence\.proxy\.async",
    "copy in": r"cp\.async\.bulk\.tensor\S*\.shared::\w+\.global",
    "copy out": r"cp\.async\.bulk\.tensor\S*\.global\.shared",
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


def test_all_threads_of_a_partition_meet_before_one_of_them_goes_on_for_all(kernel):
    # Else a barrier could go through two phases while a slow one still waits for the first of them. What a
    # producer expects needs no meeting: that phase cannot end before the copy.
    events = _events(kernel)
    for name, count in (("arrive", 2 * 8), ("copy in", 3 + 3 + 1 + 1)):
        before = [events[i - 1] for i, event in enumerate(events) if event == name]
        assert before == ["meet"] * count


def test_outputs_are_stored_fenced_and_complete_when_one_warp_sends_them(kernel):
    events = _events(kernel)
    sent = [i for i, event in enumerate(events) if event == "copy out"]
    assert len(sent) == 2  # one in each consumer
    for i in sent:
        assert events[i - 5 : i] == ["copied out", "meet", "store", "fence", "meet"]


def test_exponentials_run_beside_the_product_with_the_values(kernel):
    """Between the wait for scores and that for outputs: in both loops, and at both ends of a tile."""
    names = re.findall(r"MUFU\.EX2|WARPGROUP\.DEPBAR\.LE gsb0, 0x\d", disassemble(kernel))
    found = []
    for i, name in enumerate(names):
        if name.endswith("0x1"):
            end = next(j for j in range(i + 1, len(names)) if names[j] != "MUFU.EX2")
            assert names[end].endswith("0x0")
            found.append(end - i - 1)
    # A thread has 64 scores in two rows, and in the loop two factors for earlier sums. On the diagonal some
    # are hidden from all queries, for the first half every other one, and share one exponential.
    first_diagonal, second_diagonal, *loops = sorted(found)
    assert loops == [66, 66]
    assert second_diagonal >= 60
    assert first_diagonal >= 32


def test_consumers_have_240_registers_and_producers_24(kernel):
    sizes = {int(size, 16) for size in re.findall(r"USETMAXREG\S*\s.*?(0x\w+)", disassemble(kernel))}
    assert {24, 240} <= sizes
    assert inspect(kernel).registers * 3 == 240 + 240 + 24  # of three groups of four warps, at the launch


def test_every_multiprocessor_has_one_program(launch):
    assert (launch.name, launch.grid) == ("_attention_forward_kernel", (132, 1, 1))


@pytest.mark.parametrize("dim", [64, 128])
def test_a_length_that_is_no_multiple_of_16_and_float16_are_without_fault(dim):
    launch = _launch(2, 301, 5, dim, torch.float16)
    assert launch.grid == (15, 1, 1)  # two rows with five heads of three tiles, in pairs
    assert faults(inspect(launch.kernel), tensor_core=True, tma=True) == []


def test_windows_documents_and_shared_keys_stay_with_plain_triton():
    rows = [row for row, variants in configs.VARIANTS.items() if any(config.gluon for config in variants)]
    assert {row.shape for row in rows} == {"head_dim=64", "head_dim=128"}
    assert not any(config.gluon for config in configs.TABLE.values())
