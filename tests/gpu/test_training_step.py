"""A whole training step of a small model on the device against the same step on a CPU in float32."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import pytest
import torch

from nanochat.model.architecture import parameter_kind
from nanochat.train.loop import training_steps
from tests.gpu.models import ARCHITECTURES, SHAPES, configured, made, plan, started


@dataclass(frozen=True)
class Limits:
    """The largest relative errors: of loss, of the gradients' norm, and of a parameter's update in norm."""

    loss: float
    norm: float
    adamw: float
    muon: float
    few: float  # of an update of a handful of numbers by Muon
    scalars: float  # of the gradients of the numbers that Adam trains one by one


# An update of Adam's first step is little more than the sign of each gradient, and Muon's turns a last bit
# into a percent. Measured on a CPU, full sizes, largest of both architectures: float32 with weights changed
# by 1e-6 of themselves: 1e-7, 2e-7, 0.0015, 0.033; bfloat16: 2e-5, 6e-4, 0.12, 0.10, and 0.58 for the 12
# numbers of a gate, whose gradients all but cancel. A lone number's update is only a sign, which such a sum
# may miss: of those the gradients are compared, all numbers of a kind as one vector (0.015 in bfloat16).
_LIMITS = {
    torch.float32: Limits(loss=1e-5, norm=1e-4, adamw=5e-3, muon=0.08, few=0.08, scalars=1e-3),
    torch.bfloat16: Limits(loss=5e-4, norm=4e-3, adamw=0.25, muon=0.2, few=1.0, scalars=0.1),
}
_FEW = 100


def _step(config, rows, device, precision):
    """Return what a step measured, the updates, and by kind the scalars' gradients, each times 1 - beta."""
    model = made(config, device, precision)
    before = {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}
    state = started(model)
    (result,) = training_steps(state, plan(config, rows, 1))
    updates = {name: weight.detach().cpu() - before[name] for name, weight in model.named_parameters()}
    kept, gradients = state.optimizer.state_dict()["parameters"], defaultdict(list)
    for name in [name for name in updates if _is_scalar(name, updates[name])]:
        del updates[name]
        gradients[parameter_kind(name)].append(kept[name]["exp_avg"].flatten())
    return result, updates, {kind: torch.cat(parts) for kind, parts in gradients.items()}


def _is_scalar(name, weight):
    return parameter_kind(name) != "matrices" and weight.numel() < _FEW


@pytest.mark.parametrize("precision", _LIMITS, ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_training_step_is_that_of_a_cpu_in_float32(architecture, precision, device, sizes, keep):
    config, rows = configured(architecture, sizes), SHAPES[sizes].rows
    result, updates, gradients = _step(config, rows, device, precision)
    exact, exact_updates, exact_gradients = _step(config, rows, "cpu", torch.float32)
    limits = _LIMITS[precision]
    errors = {
        "loss": (abs(result.loss / exact.loss - 1), limits.loss),
        "gradient norm": (abs(result.grad_norm / exact.grad_norm - 1), limits.norm),
    }
    for name, update in exact_updates.items():
        muon = parameter_kind(name) == "matrices"
        limit = limits.few if update.numel() < _FEW else limits.muon if muon else limits.adamw
        errors[name] = (_error(updates[name], update), limit)
    for kind, gradient in exact_gradients.items():
        errors[f"gradients: {kind}"] = (_error(gradients[kind], gradient), limits.scalars)
    keep(**{name: error for name, (error, _) in errors.items()})
    wrong = {name: error for name, (error, limit) in errors.items() if not error <= limit}
    assert not wrong, wrong


def _error(found, exact):
    return float((found - exact).norm() / exact.norm())
