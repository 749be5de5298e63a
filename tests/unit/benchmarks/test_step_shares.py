"""Which part of a training step a kernel's time is counted as."""

from __future__ import annotations

from collections import Counter

import pytest

from kernels.measurement import Measurement
from tests.benchmarks import step_timing
from tests.benchmarks.step_shares import Span, part_of, shares


@pytest.mark.parametrize(
    ("kernel", "part"),
    [
        ("_attention_forward_kernel", "attention forward"),
        ("_attention_dq_kernel", "attention backward"),
        ("_attention_dkv_kernel", "attention backward"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128>>", "attention forward"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<>", "attention backward"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3", "attention forward"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_3", "attention backward"),
        ("_cross_entropy_rows_kernel", "loss rows"),
        ("triton_red_fused__log_softmax__to_copy_div_tanh_5", "loss rows"),
        ("nvjet_tst_256x128_64x4_2x1_v_bz_coopA_NNT", "products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "products"),
        ("_relu_squared_up_kernel", "products"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<>", "copies"),
        ("_qk_norm_rotary_forward_kernel", "norms and elementwise"),
        ("triton_per_fused_add_mean_mul_pow_rsqrt_3", "norms and elementwise"),
    ],
)
def test_a_kernel_is_counted_by_its_name(kernel, part):
    assert part_of(kernel) == part


def test_what_the_optimizer_starts_is_its_own_and_gaps_are_idle():
    kernels = [
        Span("nvjet_tst", 0, 1000),
        Span("_attention_forward_kernel", 800, 1500),  # on another stream
        Span("nvjet_tst", 2000, 2400),
        Span("nvjet_tst", 2400, 2500),
    ]
    found = shares(kernels, [Span("step: optimizer", 1990, 2450)], Counter(cudaStreamSynchronize=4), steps=2)
    assert found.milliseconds["products"] == 0.5
    assert found.milliseconds["attention forward"] == 0.35
    assert found.milliseconds["optimizer"] == 0.25
    assert found.milliseconds["idle"] == 0.25
    assert found.longest[0] == ("nvjet_tst", 0.75, 1.5)
    assert found.waits == {"cudaStreamSynchronize": 2}


def test_a_profiler_that_sees_no_device_costs_only_its_own_rows(tmp_path, monkeypatch):
    kept = Measurement("step", tmp_path, {})
    timing = step_timing.Timing(kept=kept, device="cuda", steps=1, has_time=lambda: True)
    monkeypatch.setattr(step_timing, "profile", lambda *_: shares([], [], Counter(), steps=3))
    timing._profile("d20 ours", lambda: 0.0)
    assert kept.rows == [{"section": "d20 ours", "left_out": "the profiler saw nothing of the device"}]
