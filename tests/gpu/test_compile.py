"""The model compiles into one graph, which computes the same, and the same bytes each time."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.models import ARCHITECTURES, SHAPES, batch, configured, made

# A compiler keeps results in float32 between operations that it fuses: closer to the truth, not to eager.
_LOSS, _GRADIENT = 1e-3, 0.05


def _loss_and_gradients(model, run, inputs, targets):
    model.zero_grad()
    loss = run(inputs, targets)
    loss.backward()
    return float(loss.detach()), {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_model_compiles_without_a_break(architecture, device, sizes, keep):
    config = configured(architecture, sizes)
    model = made(config, device, torch.bfloat16)
    inputs, targets = (torch.from_numpy(x).to(device) for x in batch(config, SHAPES[sizes].rows, 1))
    backend = "inductor" if device == "cuda" else "aot_eager"  # on a CPU it would wait for a C++ compiler
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    eager, expected = _loss_and_gradients(model, model, inputs, targets)
    loss, found = _loss_and_gradients(model, compiled, inputs, targets)
    errors = {name: float((found[name] - x).norm() / x.norm()) for name, x in expected.items()}
    worst = max(errors, key=errors.get)
    keep(eager=eager, compiled=loss, worst=worst, error=errors[worst])
    assert abs(loss / eager - 1) <= _LOSS
    assert errors[worst] <= _GRADIENT, errors
    again, repeated = _loss_and_gradients(model, compiled, inputs, targets)
    assert again == loss
    assert [name for name, x in found.items() if not torch.equal(x, repeated[name])] == []
