"""The gradient of a table of rows."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.embedding import embedding


class Names(TorchDispatchMode):
    """Notes what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_compiled_code_leaves_the_gradient_to_pytorchs_own_operation() -> None:
    table = torch.randn(11, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids = torch.tensor([[1, 2, 1], [10, 1, 0]])
    F.embedding(ids, table).square().sum().backward()
    expected, table.grad = table.grad, None
    compiled = torch.compile(lambda i, t: embedding(i, t).square().sum(), backend="aot_eager", fullgraph=True)
    loss = compiled(ids, table)
    with Names() as called:
        loss.backward()
    assert "nanochat.embedding_gradient.default" in called.names
    assert not any("index_put" in name for name in called.names)
    assert torch.equal(table.grad, expected)
