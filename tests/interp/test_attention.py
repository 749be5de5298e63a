"""The Triton kernels of attention in the interpreter, forward and every gradient, against float64.

Tiles are small, so that few positions make many blocks with ragged ends. Every input and output lies between
guards, and every output is full of NaN before its kernel runs.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kernels import configs
from kernels.attention import attention_reference
from kernels.attention.gpu import launch_backward, launch_forward
from tests.support.kernels.attention_cases import Case, inputs, relative_errors, run, run_in_float64
from tests.support.kernels.guards import guarded, intact, poisoned_allocations, shuffled

# Norm of the error over that of the truth. Float32: sums of up to 500 products, each rounding 6e-8 (a few of
# them add up in ds = p * (dp - delta)). 16 bits: the result is rounded once, to 2^-12 or 2^-9 on average, and
# p, ds and out (in delta) once more before their products.
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
F32, F16, BF16 = TOLERANCE


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Let a test choose (queries, keys) of a tile; dk and dv take them the other way round."""

    def choose(m: int, n: int, late: int = 1) -> None:
        for dim in (64, 128):
            for kernel in ("forward", "dq", "dkv"):
                sizes = {"BLOCK_M": n, "BLOCK_N": m} if kernel == "dkv" else {"BLOCK_M": m, "BLOCK_N": n}
                tiles = sizes | {"LATE": late}
                for row in ("", " masked"):
                    for bits in (16, 32):
                        key = configs.Row(90, f"attention_{kernel}", f"head_dim={dim}{row}", bits)
                        monkeypatch.setitem(configs.TABLE, key, configs.KernelConfig(4, 1, tiles))

    choose(32, 16)
    return choose


def _guarded(case: Case) -> Case:
    parts = {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}
    return Case(**{name: None if x is None else guarded(x) for name, x in parts.items()})


def _kernels(case: Case, window: int | None, scale: float | None = None):
    """Return outputs and gradients by name, and check that nothing was stored elsewhere."""
    case = _guarded(case)
    scale = case.q.size(3) ** -0.5 if scale is None else scale
    with poisoned_allocations() as made:
        out, lse = launch_forward(case.q, case.k, case.v, case.lo, window, scale)
        saved = (case.grad, case.q, case.k, case.v, out, lse)
        dq, dk, dv = launch_backward(*saved, case.lo, window, scale)
    assert all(map(intact, [*made, case.q, case.k, case.v, case.grad]))
    return {"out": out, "dq": dq, "dk": dk, "dv": dv}, lse


def _check(case: Case, window: int | None) -> None:
    found, _ = _kernels(case, window)
    errors = relative_errors(found, run_in_float64(case, window=window), case)
    assert max(errors.values()) <= TOLERANCE[case.q.dtype], errors


LENGTHS = (1, 15, 16, 17, 31, 33, 63, 64, 97, 127)


@pytest.mark.parametrize("length", LENGTHS)
def test_causal(length):
    _check(inputs(1, length, 2, 2, 64, F32), None)


@pytest.mark.parametrize("length", LENGTHS)
def test_shared_key_heads(length):
    _check(inputs(1, length, 3, 1, 64, BF16, seed=length), None)


@pytest.mark.parametrize("window", [0, 1, 14, 15, 16, 31, 32, 33, 61, 98])
def test_windows(window):
    _check(inputs(1, 99, 2, 1, 64, F32, seed=window), window)


@pytest.mark.parametrize("mean", [1, 3, 10, 20, 40, 90])
def test_documents(mean):
    _check(inputs(2, 101, 1, 1, 64, F32, documents=mean, seed=mean), None)


@pytest.mark.parametrize(("mean", "window"), [(5, 8), (20, 16), (40, 17), (60, 0), (60, 64)])
@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_documents_in_windows_with_shared_key_heads(mean, window, dtype):
    _check(inputs(2, 90, 2, 1, 64, dtype, documents=mean, seed=window), window)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("length", "window", "mean"), [(250, None, None), (250, 100, None), (127, 60, 50)])
def test_head_dimension_128_and_larger_tiles(length, window, mean, dtype, small_tiles):
    small_tiles(64, 32)
    _check(inputs(1, length, 2, 1, 128, dtype, documents=mean), window)


@pytest.mark.parametrize(
    ("dtype", "length", "kv_heads", "window", "mean"),
    [(F32, 97, 2, None, None), (BF16, 127, 1, None, None), (F32, 99, 1, 33, None), (F16, 90, 1, 17, 40)],
)
def test_products_that_are_not_late(dtype, length, kv_heads, window, mean, small_tiles):
    small_tiles(32, 16, late=0)
    _check(inputs(1, length, 2, kv_heads, 64, dtype, documents=mean), window)


def _variants(dim: int, masked: bool) -> list[tuple[int, bool, dict[str, str]]]:
    """Return runs that together use each configuration of an H100; nothing interprets those in Gluon."""
    shape = f"head_dim={dim}{' masked' if masked else ''}"
    kernels = ("attention_forward", "attention_dq", "attention_dkv")
    rows = {k: configs.candidates(configs.Row(90, k, shape, 16)) for k in kernels}
    names = {k: [config.name for config in own if not config.gluon] for k, own in rows.items()}
    runs = max(map(len, names.values()))
    return [
        (dim, masked, {k: own[min(run, len(own) - 1)] for k, own in names.items()}) for run in range(runs)
    ]


@pytest.mark.parametrize(
    ("dim", "masked", "variants"),
    [run for dim in (64, 128) for masked in (False, True) for run in _variants(dim, masked)],
    ids=str,
)
def test_every_configuration_of_an_h100(dim, masked, variants, monkeypatch):
    monkeypatch.undo()  # the real tiles
    with configs.trying(**variants):
        _check(
            inputs(1, 300, 2, 1 if masked else 2, dim, BF16, documents=200 if masked else None),
            150 if masked else None,
        )


@pytest.mark.parametrize(("m", "n"), [(16, 16), (64, 16), (64, 64), (128, 32)])
def test_any_tiles_give_the_same_result(m, n, small_tiles):
    small_tiles(m, n)
    _check(inputs(1, 150, 2, 1, 64, F32, documents=60), 70)


@pytest.mark.parametrize(("window", "mean"), [(None, None), (40, None), (None, 30), (25, 30)])
def test_bfloat16_is_at_most_twice_as_wrong_as_torchs_own(window, mean):
    case = inputs(1, 130, 2, 1, 64, BF16, documents=mean)
    truth = run_in_float64(case, window=window)
    ours = relative_errors(_kernels(case, window)[0], truth, case)
    theirs = relative_errors(run(attention_reference, case, window=window), truth, case)
    assert all(ours[name] <= 2 * theirs[name] for name in truth), (ours, theirs)


@pytest.mark.parametrize(("window", "mean"), [(None, None), (20, None), (None, 30)])
def test_neither_order_of_programs_nor_repetition_changes_a_byte(window, mean):
    case = inputs(1, 70, 2, 1, 64, BF16, documents=mean)
    first, lse = _kernels(case, window)
    with shuffled(1):
        again, lse_again = _kernels(case, window)
    assert torch.equal(lse, lse_again)
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("window", [None, 30])
def test_lse_is_the_log_of_the_sum_of_exponentials(window):
    case = inputs(2, 75, 2, 2, 64, F32)
    _, lse = _kernels(case, window, scale=0.3)
    t = torch.arange(75)
    visible = (t <= t[:, None]) & (t >= t[:, None] - (75 if window is None else window))
    scores = 0.3 * torch.einsum("bthd,bshd->bhts", case.q.double(), case.k.double())
    truth = scores.masked_fill(~visible, float("-inf")).logsumexp(-1)
    torch.testing.assert_close(lse.double(), truth, rtol=1e-6, atol=1e-6)  # float32, sums of 75


def test_large_scores_do_not_overflow():
    case = inputs(1, 70, 1, 1, 64, F32)
    case = dataclasses.replace(case, q=case.q * 100)  # scores of several hundred
    found, _ = _kernels(case, 33)  # numpy's warnings are errors
    errors = relative_errors(found, run_in_float64(case, window=33), case)
    assert max(errors.values()) <= 1e-4, (
        errors
    )  # a score of 500 is known to 3e-5 in float32, and so is its exp


def test_slices_of_one_projection_are_read_in_place():
    fused = torch.randn(2, 50, 4, 64, generator=torch.Generator().manual_seed(0))
    case = Case(*fused.split((2, 1, 1), dim=2), grad=torch.ones(2, 50, 2, 64), lo=None)
    out, _ = launch_forward(case.q, case.k, case.v, None, 20, 0.125)
    torch.testing.assert_close(out, attention_reference(case.q, case.k, case.v, window=20))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q: torch.randn(2, 50, 2, 32), "head dimension 32; on a GPU it must be .* 64 or 128"),
        (lambda q: q.double(), "q is torch.float64.* on a GPU it must be bfloat16 or float16"),
        (
            lambda q: torch.randn(2 * 50 * 129 + 1)[1:].view(2, 50, 129)[..., :128].unflatten(2, (2, 64)),
            "strides",
        ),
    ],
)
def test_what_a_gpu_cannot_take_is_named(change, words):
    q = change(torch.randn(2, 50, 2, 64))
    with pytest.raises((ValueError, KeyError), match=words):
        launch_forward(q, q, q, None, None, 0.125)
