"""The estimate of a main loop: exact on a few lines of SASS, and sensible on a kernel that is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kernels import configs
from kernels.attention import op as attention
from tests.support.kernels.estimate import LOAD_CYCLES, estimate
from tests.support.kernels.fake_driver import dry_run
from tests.support.kernels.launches import meta
from tests.support.kernels.machine_code import inspect
from tests.support.kernels.machine_code_table import worse

PRODUCT = "HGMMA.64x128x16.F32.BF16 R24, R152, gdesc[UR16].tnspB, R24, gsb0"  # 64 cycles for four warps
FROM_SHARED = "HGMMA.64x32x16.F32.BF16 R24, gdesc[UR16], R24, gsb0"  # 16 cycles, for 3 KB at 128 bytes each
WAIT = "WARPGROUP.DEPBAR.LE gsb0, 0x0"
EXPONENTIALS = ["MUFU.EX2 R1, R2"] * 4  # 32 cycles
LOAD = ["SYNCS.ARRIVE.TRANS64 RZ, [UR9+0x8000], R2", "UTMALDG.4D [UR8], [UR6]"]
LOADED = "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR11+0x8000], R10"


def _sass(*loop):
    lines = ["MOV R1, R2", *loop, "@P0 BRA 0x10", "EXIT"]
    return "".join(f"        /*{16 * i:04x}*/   {line} ;   /* 0x0 */\n" for i, line in enumerate(lines))


def _loop(*loop, warps=4, shared=200_000, stages=3):
    return estimate(_sass(*loop), warps=warps, registers=128, shared=shared, stages=stages)


def test_what_runs_before_the_wait_for_a_product_is_hidden_behind_it():
    hidden, exposed = _loop(PRODUCT, *EXPONENTIALS, WAIT), _loop(PRODUCT, WAIT, *EXPONENTIALS)
    assert hidden.tensor == exposed.tensor == 64
    assert (hidden.cycles, exposed.cycles) == (64 + 2, 64 + 32)  # 2: wait and branch
    assert hidden.overlapped > 90 > 10 > exposed.overlapped
    assert hidden.bound_tflops > 1.4 * exposed.bound_tflops


def test_eight_warps_share_the_units():
    four, eight = (_loop(PRODUCT, WAIT, *EXPONENTIALS, warps=warps) for warps in (4, 8))
    assert (eight.tensor, eight.cycles) == (2 * four.tensor, 2 * four.cycles)


def test_two_blocks_on_a_multiprocessor_fill_each_others_gaps():
    one, two = (_loop(PRODUCT, WAIT, *EXPONENTIALS, shared=shared) for shared in (200_000, 100_000))
    assert (one.blocks, two.blocks) == (1, 2)
    assert two.bound_tflops == 989 > one.bound_tflops


def test_a_narrow_product_waits_for_shared_memory():
    assert _loop(FROM_SHARED, WAIT).cycles >= 24 > _loop(FROM_SHARED, WAIT).tensor == 16


def test_a_load_with_two_stages_is_waited_for_and_one_with_many_is_not():
    few, many = (_loop(LOADED, PRODUCT, WAIT, *LOAD, stages=stages) for stages in (2, 20))
    assert few.cycles > LOAD_CYCLES > many.cycles
    assert (few.waits, many.waits) == (1, 1)


def test_the_first_reader_of_a_plain_load_waits_for_it():
    load = "LDG.E.64 R6, desc[UR22][R8.64]"
    early, late = _loop(load, "FADD R2, R7, R7", PRODUCT, WAIT), _loop(load, PRODUCT, WAIT, "FADD R2, R7, R7")
    assert early.cycles - late.cycles >= 64


def test_code_that_a_branch_jumps_over_is_not_counted_unless_it_has_products():
    inside = "@P1 BRA 0x50"  # over the two lines after it, to the wait
    assert _loop(PRODUCT, inside, *EXPONENTIALS[:2], WAIT).other < 8
    assert _loop(PRODUCT, inside, PRODUCT, PRODUCT, WAIT).tensor == 3 * 64


def test_barriers_are_counted_and_a_loop_without_products_has_no_estimate():
    assert _loop("BAR.SYNC.DEFER_BLOCKING 0x0", PRODUCT, WAIT, "BAR.SYNC.DEFER_BLOCKING 0x0").barriers == 2
    assert _loop(*EXPONENTIALS) is None


@pytest.fixture(scope="module")
def forward():
    q = meta(32, 2048, 10, 128, dtype=torch.bfloat16)
    found = {}
    for variant in ("base", "early"):
        with configs.trying(attention_forward=variant), dry_run() as launches:
            attention.forward(q, q, q, None, None, 0.1)
        found[variant] = inspect(launches[0].kernel)
    return found


def test_a_late_product_hides_most_of_the_softmax(forward):
    assert forward["base"].overlapped > 60 > 30 > forward["early"].overlapped
    assert forward["base"].bound_tflops > 1.15 * forward["early"].bound_tflops


def test_less_overlap_or_a_further_barrier_is_worse(forward):
    code = forward["base"]
    lost = dataclasses.replace(code, overlapped=code.overlapped // 2, barriers=code.barriers + 1)
    assert worse(code, code) == []
    assert [text.split()[0] for text in worse(lost, code)] == ["barriers", "overlapped"]
