"""Documents that share a row, with and without `document_token`: who sees whom."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nanochat.model.gpt import GPT
from tests.unit.nanochat.model.conftest import drawn

BOS = 96


@pytest.fixture
def apart(model: GPT) -> GPT:
    """The same weights as `model`, documents hidden from each other."""
    return drawn(model.config.model_copy(update={"document_token": BOS}))


def row(first: int) -> Tensor:
    """Return one row with two documents, of which the first ends with two chosen tokens."""
    return torch.tensor([[BOS, 5, 6, first, first + 1, BOS, 7, 8, 9, 10]])


def test_a_document_does_not_see_the_one_before_it(model: GPT, apart: GPT) -> None:
    with torch.no_grad():
        assert torch.equal(apart(row(20))[:, 5:], apart(row(40))[:, 5:])
        assert not torch.equal(model(row(20))[:, 5:], model(row(40))[:, 5:])


def test_the_first_document_of_a_row_is_computed_as_ever(model: GPT, apart: GPT) -> None:
    with torch.no_grad():
        torch.testing.assert_close(apart(row(20))[:, :5], model(row(20))[:, :5], rtol=1e-5, atol=1e-5)
        assert torch.equal(apart(row(20)[:, :5]), model(row(20)[:, :5]))  # alone it is exactly the same


def test_no_gradient_reaches_the_document_before(apart: GPT) -> None:
    targets = torch.full((1, 10), -1)
    targets[:, 6:] = 3
    apart(row(20), targets).backward()
    grads = apart.transformer.wte.weight.grad
    assert grads is not None
    seen = grads.abs().sum(1) > 0
    assert seen[[BOS, 7, 8, 9, 10]].all()
    assert not seen[[5, 6, 20, 21]].any()


def test_document_masks_leave_no_graph_break(apart: GPT) -> None:
    compiled = torch.compile(apart, fullgraph=True, backend="aot_eager")
    targets = row(20).roll(-1, 1)
    torch.testing.assert_close(compiled(row(20), targets), apart(row(20), targets))
