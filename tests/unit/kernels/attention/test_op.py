"""Attention on a CPU: against its definition in float64, torch's own operations and rules for custom ops."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kernels.attention import attention, attention_reference, document_starts, visible_pairs
from kernels.registration import FLOPS
from tests.support.kernels.attention_cases import inputs, relative_errors, run, run_in_float64

# Errors against float64, relative in norm. A result is rounded to 2^-53, 2^-24, 2^-11 or 2^-8 at most, half
# of that on average; sums over D and T round several times more, and so do p, ds and the blocks' gradients.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("length", "heads", "kv_heads", "dim", "window", "documents"),
    [
        (1, 2, 1, 32, None, None),
        (63, 4, 4, 32, None, None),
        (250, 4, 2, 32, None, None),
        (127, 3, 1, 64, 0, None),
        (250, 4, 2, 32, 37, None),
        (64, 2, 2, 128, 63, None),
        (250, 4, 1, 32, None, 60),
        (193, 4, 4, 16, 40, 25),
    ],
)
def test_outputs_and_gradients_match_the_definition(length, heads, kv_heads, dim, window, documents, dtype):
    case = inputs(2, length, heads, kv_heads, dim, dtype, documents=documents)
    ours = run(attention, case, window=window)
    errors = relative_errors(ours, run_in_float64(case, window=window), case)
    assert max(errors.values()) <= TOLERANCE[dtype], errors


def _mask(lo, length, window):
    t = torch.arange(length)
    visible = (t <= t[:, None]) & (t >= t[:, None] - (length if window is None else window))
    return visible[None, None] & (t >= lo[:, None, :, None])


@pytest.mark.parametrize("window", [None, 30])
def test_it_is_sdpa_with_an_explicit_mask(window):
    case = inputs(2, 123, 4, 2, 32, torch.float32, documents=40)

    def sdpa(q, k, v, *, lo, window):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        mask = _mask(lo, q.size(2), window)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    errors = relative_errors(run(attention, case, window=window), run(sdpa, case, window=window), case)
    assert max(errors.values()) <= 1e-6, errors  # both round to float32 a few times


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 30])
def test_it_is_flex_attention_with_the_same_mask_function(window):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    case = inputs(2, 150, 4, 2, 32, torch.float32, documents=40)
    (document := torch.zeros(2, 150, dtype=torch.long)).scatter_(1, case.lo.long(), 1)
    document = document.cumsum(1)

    def visible(b, h, t, s):
        near = t - s <= (150 if window is None else window)
        return (s <= t) & near & (document[b, t] == document[b, s])

    q, k, v = (x.transpose(1, 2) for x in (case.q, case.k, case.v))
    block_mask = create_block_mask(visible, 2, None, 150, 150, device="cpu")
    theirs = flex_attention(q, k, v, block_mask=block_mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(attention(case.q, case.k, case.v, window=window, lo=case.lo), theirs)


def test_documents_do_not_see_each_other():
    case = inputs(1, 130, 2, 2, 32, torch.float32)
    marks = torch.zeros(1, 130, dtype=torch.bool)
    marks[0, 77] = True
    lo = document_starts(marks)
    alone = attention(*(x[:, 77:].contiguous() for x in (case.q, case.k, case.v)))
    packed = attention(case.q, case.k, case.v, lo=lo)
    torch.testing.assert_close(packed[:, 77:], alone)
    changed = attention(case.q, case.k + (torch.arange(130) < 77)[None, :, None, None], case.v, lo=lo)
    assert torch.equal(changed[:, 77:], packed[:, 77:])
    assert not torch.equal(changed[:, :77], packed[:, :77])


def test_document_starts_from_marks_and_from_numbers_are_the_same():
    marks = torch.tensor([[0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 1]], dtype=torch.bool)
    expected = torch.tensor([[0, 0, 2, 3, 3, 3], [0, 0, 0, 0, 0, 5]], dtype=torch.int32)
    assert torch.equal(document_starts(marks), expected)
    numbers = torch.tensor([[7, 7, 3, 9, 9, 9], [2, 2, 2, 2, 2, 0]])
    assert torch.equal(document_starts(numbers), expected)
    assert document_starts(numbers).dtype == torch.int32


@pytest.mark.parametrize(("window", "documents"), [(None, None), (37, None), (None, 50)])
def test_it_gives_the_same_bytes_each_time_and_on_any_number_of_threads(window, documents):
    case = inputs(3, 200, 4, 2, 32, torch.float32, documents=documents)
    first = run(attention, case, window=window)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        second = run(attention, case, window=window)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_window_that_covers_the_row_is_plain_causal_attention():
    case = inputs(1, 99, 2, 2, 32, torch.float32)
    plain = attention(case.q, case.k, case.v)
    assert torch.equal(attention(case.q, case.k, case.v, window=98), plain)
    assert not torch.equal(attention(case.q, case.k, case.v, window=97), plain)


def test_slices_of_one_projection_need_no_copies():
    fused = torch.randn(2, 70, 8, 32)
    q, k, v = fused.split((4, 2, 2), dim=2)
    out = attention(q, k, v, window=20)
    assert out.is_contiguous()
    assert torch.equal(out, attention(q.contiguous(), k.contiguous(), v.contiguous(), window=20))


@pytest.mark.parametrize(("window", "documents"), [(None, None), (9, None), (None, 20), (9, 20)])
def test_torchs_rules_for_custom_operations_hold(window, documents):
    case = inputs(2, 45, 4, 2, 16, torch.float32, documents=documents)
    q, k, v = (x.requires_grad_() for x in (case.q, case.k, case.v))
    arguments = (q, k, v, case.lo, window, 0.25)
    torch.library.opcheck(torch.ops.nanochat.attention_forward.default, arguments)
    out, lse = torch.ops.nanochat.attention_forward(*arguments)
    saved = [x.detach() for x in (torch.randn_like(out), q, k, v, out, lse)]
    torch.library.opcheck(torch.ops.nanochat.attention_backward.default, (*saved, case.lo, window, 0.25))


@pytest.mark.parametrize(("window", "documents"), [(None, None), (37, 50)])
def test_it_compiles_into_one_graph_with_the_same_results(window, documents):
    case = inputs(2, 130, 4, 2, 32, torch.float32, documents=documents)

    def layer(q, k, v, *, window, lo):
        return attention(q * 2, k, v, window=window, lo=lo) * 2

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    eager, traced = run(layer, case, window=window), run(compiled, case, window=window)
    assert all(torch.equal(eager[name], traced[name]) for name in eager)


@pytest.mark.parametrize("window", [None, 0, 37, 129, 500])
def test_flops_are_counted_exactly(window):
    case = inputs(2, 130, 4, 2, 32, torch.float32)
    with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
        run(attention, case, window=window)
    t = torch.arange(130)
    pairs = int((t + 1).clamp(max=(130 if window is None else window) + 1).sum())
    assert visible_pairs(130, window) == pairs
    assert counter.get_total_flops() == (2 + 5) * 2 * 2 * 4 * 32 * pairs  # two products, then five


def test_on_a_device_that_is_not_there_it_has_shapes_and_dtypes():
    with FakeTensorMode():
        q = torch.empty(2, 64, 4, 128, dtype=torch.bfloat16, device="cuda")
        k = torch.empty(2, 64, 2, 128, dtype=torch.bfloat16, device="cuda")
        out = attention(q, k, k, window=9)
        assert (out.shape, out.dtype, out.device.type) == (q.shape, q.dtype, "cuda")
        lse = torch.empty(2, 4, 64, device="cuda")
        grads = torch.ops.nanochat.attention_backward(out, q, k, k, out, lse, None, 9, 0.1)
        assert [(g.shape, g.dtype) for g in grads] == [(x.shape, x.dtype) for x in (q, k, k)]


def _changed(**changes):
    case = inputs(2, 10, 4, 2, 16, torch.float32)
    arguments = {"q": case.q, "k": case.k, "v": case.v}
    return arguments | changes


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"q": torch.zeros(2, 10, 4, 16, dtype=torch.int64)}, TypeError, "q is int64"),
        ({"q": torch.zeros(10, 4, 16)}, ValueError, r"q has shape \(10, 4, 16\).*\(B, T, H, D\)"),
        ({"k": torch.zeros(2, 9, 2, 16)}, ValueError, r"k has shape .* \(2, 10, any, 16\)"),
        ({"v": torch.zeros(2, 10, 4, 16)}, ValueError, r"v has shape .* \(2, 10, 2, 16\)"),
        ({"q": torch.zeros(2, 10, 3, 16)}, ValueError, "q has shape .* k 2 heads; .* K that divides H"),
        ({"k": torch.zeros(2, 10, 2, 16).bfloat16()}, TypeError, "k is bfloat16; expected float32"),
        ({"v": torch.zeros(2, 10, 2, 16, device="meta")}, ValueError, "v is on meta; expected cpu"),
        ({"k": torch.zeros(2, 10, 16, 2).mT}, ValueError, r"k has strides .* 1 for the last"),
        ({"window": -1}, ValueError, "window is -1"),
        ({"scale": 0.0}, ValueError, "scale is 0.0"),
        ({"lo": torch.zeros(2, 10, dtype=torch.int64)}, TypeError, "lo is int64; expected int32"),
        ({"lo": torch.zeros(10, dtype=torch.int32)}, ValueError, r"lo has shape \(10,\).* \(2, 10\)"),
        ({"lo": torch.zeros(2, 10, dtype=torch.int32, device="meta")}, ValueError, "lo is on meta"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(changes, error, words):
    with pytest.raises(error, match=words):
        attention(**_changed(**changes))


def test_a_start_past_its_query_counts_as_the_query():
    case = inputs(1, 20, 2, 2, 16, torch.float32)
    lo = torch.full((1, 20), 99, dtype=torch.int32)
    torch.testing.assert_close(attention(case.q, case.k, case.v, lo=lo), case.v)
    torch.testing.assert_close(attention_reference(case.q, case.k, case.v, lo=lo), case.v)
