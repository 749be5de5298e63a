"""The counted cost of a step."""

from __future__ import annotations

import pytest
import torch

from kernels import roofline
from kernels.linear_cross_entropy.op import _chunk_rows
from kernels.roofline import Shape, loss_bytes, parts, report, step_flops

D20 = Shape()


def test_the_kept_table_is_the_one_that_the_command_prints(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["roofline"])
    roofline.main()
    assert capsys.readouterr().out == roofline.RESULT.read_text(encoding="utf-8") == report(D20)


def test_a_step_has_the_operations_of_upstreams_published_log():
    # 3.491758e9 for each token of d20, in its log.
    assert step_flops(D20) / D20.tokens == pytest.approx(3.491758e9, rel=1e-6)


def test_the_parts_hold_the_operations_of_a_step_less_the_pairs_that_the_mask_hides():
    model = [part for part in parts(D20) if not part.name.startswith(("Muon", "AdamW"))]
    hidden = 12 * D20.layers * D20.width * (D20.length - (D20.length + 1) / 2)
    # Backward of attention computes its scores again, which MFU does not count: two operations a pair.
    again = D20.layers * D20.width * (D20.length + 1)
    counted = step_flops(D20) / D20.tokens - hidden
    assert sum(part.flops for part in model) / D20.tokens == pytest.approx(counted + again, rel=1e-3)


def test_the_budget_of_d20_meets_the_target():
    assert sum(part.budget_ms for part in parts(D20)) <= roofline.TARGET_MS
    assert loss_bytes(D20) <= roofline.LOSS_TARGET_BYTES


def test_no_budget_is_below_what_the_hardware_allows():
    for part in parts(D20):
        assert 0 < part.share <= 1 and part.budget_ms >= part.floor_ms > 0, part.name


def test_the_loss_is_counted_with_the_chunk_that_it_uses():
    hidden = torch.empty(D20.tokens, D20.width, dtype=torch.bfloat16, device="meta")
    assert _chunk_rows(hidden, D20.vocab) == D20.accumulated_chunk
