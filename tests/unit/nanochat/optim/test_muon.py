"""Muon's update against its definition, and its state."""

from __future__ import annotations

import pytest
import torch

from nanochat.optim import muon
from nanochat.optim.muon import (
    CLASSIC,
    NORMALIZED,
    MatrixRule,
    Muon,
    descend,
    orthogonalize,
    polar_express,
    rescaled,
    with_even_variance,
)

SHAPES = [(3, 63, 63), (2, 100, 24), (2, 24, 100)]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["bfloat16 products", "rounding between float32 products"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    native = request.param.startswith("bfloat16")
    monkeypatch.setattr(muon, "multiplies_bfloat16", lambda device_type: native)
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int, int], products: str) -> None:
    matrices = noise(*shape)
    result = orthogonalize(matrices)
    assert result.dtype == torch.float32
    values = torch.linalg.svdvals(result)
    # Five iterations leave values between 0.65 and 1.2, but for the smallest of a square matrix.
    assert 1.0 < float(values.max()) < 1.25
    assert float(values.median()) > 0.65
    assert float(values[:, : shape[1] * 2 // 3].min()) > 0.6
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ result @ v.mT
    off_diagonal = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
    # Entries of 1 are rounded to 2 ** -9, in each of 15 products; exact arithmetic gives 1e-5.
    assert 1e-4 < float(off_diagonal.abs().max()) < 5e-2


@pytest.mark.parametrize("shape", SHAPES)
def test_polar_express_comes_nearer_to_one(shape: tuple[int, int, int], products: str) -> None:
    values = torch.linalg.svdvals(polar_express(noise(*shape)))
    assert 1.0 < float(values.max()) < 1.2
    assert float(values.median()) == pytest.approx(1.0, abs=0.05)
    assert float(values[:, : shape[1] * 2 // 3].min()) > 0.8


@pytest.mark.parametrize("function", [orthogonalize, polar_express])
def test_results_are_bfloat16_numbers_however_they_are_computed(function, products: str) -> None:
    result = function(noise(2, 63, 100))
    assert torch.equal(result, result.bfloat16().float())


@pytest.mark.parametrize("function", [orthogonalize, polar_express])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_ways_of_rounding_agree_as_far_as_sums_in_another_order_do(
    function, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    matrices = noise(*shape)
    results = {}
    for native in (True, False):
        monkeypatch.setattr(muon, "multiplies_bfloat16", lambda device_type, native=native: native)
        results[native] = function(matrices)
    monkeypatch.setattr(muon, "_rounded", lambda x: x)
    unrounded = function(matrices)
    apart = float((results[True] - results[False]).norm())
    assert apart <= 0.7 * float((unrounded - results[True]).norm())
    # Of entries of 0.1: 0.02 was seen where a square matrix has small singular values.
    torch.testing.assert_close(results[True], results[False], atol=3e-2, rtol=0)


def test_a_zero_matrix_stays_zero() -> None:
    assert not orthogonalize(torch.zeros(1, 5, 7)).any()
    assert not polar_express(torch.zeros(1, 5, 7)).any()


@pytest.mark.parametrize("rule", [CLASSIC, NORMALIZED])
@pytest.mark.parametrize("shape", [(9, 5), (5, 9)])
def test_a_gradient_of_zeros_leaves_the_matrix_as_it_is(rule: MatrixRule, shape: tuple[int, int]) -> None:
    # Most matrices have one in the first step, because blocks start with output matrices of zeros.
    matrix = torch.nn.Parameter(noise(*shape))
    matrix.grad = torch.zeros(shape)
    Muon({"a": matrix}, rule, lr=0.02).step(1.0, 0.95)
    assert torch.equal(matrix, noise(*shape))


def test_rows_of_very_different_size_come_out_alike() -> None:
    matrices = noise(1, 24, 100) * torch.logspace(-2, 2, 24)[None, :, None]
    norms = polar_express(matrices).norm(dim=-1)
    assert float(norms.min()) > 0.9 and float(norms.max()) < 1.1
    assert float(orthogonalize(matrices).norm(dim=-1).min()) < 0.5  # which scales no rows


@pytest.mark.parametrize("shape", [(2, 9, 5), (2, 5, 9)])
def test_rescaled_updates_have_the_norm_of_orthogonal_matrices(shape: tuple[int, int, int]) -> None:
    norms = rescaled(noise(*shape) * 7).norm(dim=(-2, -1))
    torch.testing.assert_close(norms, torch.full((2,), 5**0.5))


@pytest.mark.parametrize(("shape", "along"), [((2, 9, 5), -1), ((2, 5, 9), -2)])
def test_even_variance_divides_by_the_running_mean_square_and_keeps_the_norm(
    shape: tuple[int, int, int], along: int
) -> None:
    second = torch.zeros(shape).sum(dim=along, keepdim=True)
    expected_second = second.clone()
    for seed in (1, 2):
        updates = noise(*shape, seed=seed)
        result = with_even_variance(updates, second)
        expected_second = 0.9 * expected_second + 0.1 * (updates**2).mean(dim=along, keepdim=True)
        expected = updates / expected_second.sqrt()
        expected *= updates.norm(dim=(1, 2), keepdim=True) / expected.norm(dim=(1, 2), keepdim=True)
        torch.testing.assert_close(second, expected_second)
        torch.testing.assert_close(result, expected)


def test_decay_is_for_entries_that_move_towards_zero() -> None:
    parameter = torch.tensor([2.0, 2.0, -2.0, 0.0])
    descend([parameter], torch.tensor([[1.0, -1.0, -1.0, 1.0]]), 0.5, 0.1)
    torch.testing.assert_close(parameter, torch.tensor([1.4, 2.5, -1.4, -0.5]))


def test_two_steps_follow_the_definition() -> None:
    start, gradients = noise(32, 8), [noise(32, 8, seed=1), noise(32, 8, seed=2)]
    parameter = torch.nn.Parameter(start.clone())
    optimizer = Muon({"p": parameter}, CLASSIC, lr=0.1)
    expected, buffer = start.clone(), torch.zeros(32, 8)
    for gradient, momentum in zip(gradients, (0.85, 0.9), strict=True):
        parameter.grad = gradient.clone()
        optimizer.step(0.5, momentum)
        buffer = momentum * buffer + (1 - momentum) * gradient
        nesterov = (1 - momentum) * gradient + momentum * buffer
        expected -= 0.1 * 0.5 * 2.0 * orthogonalize(nesterov[None])[0]  # 2 = sqrt(32 / 8)
    # The mixture's last bits may round otherwise to bfloat16: 0.01 times the rate.
    torch.testing.assert_close(parameter.detach(), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("rule", [CLASSIC, NORMALIZED])
def test_stacked_matrices_are_updated_as_if_alone(rule: MatrixRule) -> None:
    shapes = {"a": (8, 8), "b": (8, 16), "c": (8, 8)}
    together = {n: torch.nn.Parameter(noise(*s, seed=len(n))) for n, s in shapes.items()}
    for seed, parameter in enumerate(together.values()):
        parameter.grad = noise(*parameter.shape, seed=seed + 10)
    alone = {n: torch.nn.Parameter(p.detach().clone()) for n, p in together.items()}
    for name, parameter in alone.items():
        parameter.grad = together[name].grad.clone()
        Muon({name: parameter}, rule, lr=0.02).step(1.0, 0.95)
    Muon(together, rule, lr=0.02).step(1.0, 0.95)
    for name in shapes:
        torch.testing.assert_close(together[name], alone[name], atol=1e-6, rtol=1e-5)


def test_state_is_by_name_in_the_shapes_that_the_rule_says() -> None:
    parameters = {n: torch.nn.Parameter(noise(*s)) for n, s in (("x", (4, 6)), ("y", (4, 6)), ("z", (6, 4)))}
    optimizer = Muon(parameters, NORMALIZED, lr=0.02)
    for name, parameter in parameters.items():
        parameter.grad = noise(*parameter.shape, seed=ord(name))
    optimizer.step(1.0, 0.9)
    for name, parameter in parameters.items():
        state = optimizer.state()[name]
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        assert shapes == NORMALIZED.state_shapes(parameter.shape)
        torch.testing.assert_close(state["momentum"], 0.1 * parameter.grad)
        assert bool((state["second_moment"] > 0).all())


def test_a_parameter_without_gradient_is_named() -> None:
    with pytest.raises(ValueError, match="lonely has no gradient"):
        Muon({"lonely": torch.nn.Parameter(noise(4, 4))}, CLASSIC, lr=0.1).step(1.0, 0.9)
