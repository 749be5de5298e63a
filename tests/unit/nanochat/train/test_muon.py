"""Muon's update against its definition, and its state."""

from __future__ import annotations

import pytest
import torch

from nanochat.train.muon import Muon, orthogonalize


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 63, 63), (2, 100, 24), (2, 24, 100)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int, int]) -> None:
    matrices = noise(*shape)
    result = orthogonalize(matrices)
    values = torch.linalg.svdvals(result)
    assert float(values.max()) < 1.25
    assert float(values.median()) > 0.65
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ result @ v.mT
    off_diagonal = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
    assert float(off_diagonal.abs().max()) < 1e-3


def test_two_steps_follow_the_definition() -> None:
    start, gradients = noise(32, 8), [noise(32, 8, seed=1), noise(32, 8, seed=2)]
    parameter = torch.nn.Parameter(start.clone())
    muon = Muon({"p": parameter}, lr=0.1)
    expected, buffer = start.clone(), torch.zeros(32, 8)
    for gradient, momentum in zip(gradients, (0.85, 0.9), strict=True):
        parameter.grad = gradient.clone()
        muon.step(0.5, momentum)
        buffer = momentum * buffer + (1 - momentum) * gradient
        nesterov = (1 - momentum) * gradient + momentum * buffer
        expected -= 0.1 * 0.5 * 2.0 * orthogonalize(nesterov[None])[0]  # 2 = sqrt(32 / 8)
    torch.testing.assert_close(parameter.detach(), expected, atol=1e-5, rtol=1e-5)


def test_stacked_matrices_are_updated_as_if_alone() -> None:
    shapes = {"a": (8, 8), "b": (8, 16), "c": (8, 8)}
    together = {n: torch.nn.Parameter(noise(*s, seed=len(n))) for n, s in shapes.items()}
    for seed, parameter in enumerate(together.values()):
        parameter.grad = noise(*parameter.shape, seed=seed + 10)
    alone = {n: torch.nn.Parameter(p.detach().clone()) for n, p in together.items()}
    for name, parameter in alone.items():
        parameter.grad = together[name].grad.clone()
        Muon({name: parameter}, lr=0.02).step(1.0, 0.95)
    Muon(together, lr=0.02).step(1.0, 0.95)
    for name in shapes:
        torch.testing.assert_close(together[name], alone[name], atol=1e-6, rtol=1e-5)


def test_state_is_by_name_and_carries_over() -> None:
    parameters = {n: torch.nn.Parameter(noise(4, 6)) for n in ("x", "y")}
    first = Muon(parameters, lr=0.02)
    for parameter in parameters.values():
        parameter.grad = noise(4, 6, seed=5)
    first.step(1.0, 0.9)
    second = Muon(parameters, lr=0.02)
    second.load_state_dict({name: m.clone() for name, m in first.state_dict().items()})
    assert set(second.state_dict()) == {"x", "y"}
    torch.testing.assert_close(second.state_dict()["y"], first.state_dict()["y"], atol=0, rtol=0)


def test_a_parameter_without_gradient_is_named() -> None:
    with pytest.raises(ValueError, match="lonely has no gradient"):
        Muon({"lonely": torch.nn.Parameter(noise(4, 4))}, lr=0.1).step(1.0, 0.9)
