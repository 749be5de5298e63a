"""Muon: momentum, then the nearest orthogonal matrix as the update; in the two variants of upstream nanochat.

The parts are functions of stacks of matrices of one shape, (N, m, n); a `MatrixRule` puts them together and
`Muon` keeps the state. Nothing here communicates: whoever uses `Muon` hands it the matrices it is to update.
Sources: https://kellerjordan.github.io/posts/muon/ (`classic`); for `2026` also arXiv:2505.16932 (Polar
Express), arXiv:2510.05491 (NorMuon), arXiv:2603.28254 (row equilibration), arXiv:2602.21545 (rescaling).

The iteration runs in bfloat16 on every machine: inputs and results are rounded to bfloat16, sums inside a
product are float32. A processor without bfloat16 instructions takes twenty times as long for such products,
so there the same rounded numbers lie in float32 tensors. Both give the same except for the order in which a
product adds up, as any two machines do; and one last bit in ten thousand is enough to differ by 0.01 in the
directions of the smallest singular values.

CPU milliseconds of `orthogonalize` for 16 matrices of 256 x 256, and for 4 layers of width 128, on one thread
of an AMD EPYC with bfloat16 instructions (torch 2.13, medians of 15): plain float32 107 and 31, bfloat16 59
and 20, rounding between float32 products 160 and 47. A step of the latter on 4,096 tokens takes 750 in all.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Coefficients = Sequence[tuple[float, float, float]]
State = dict[str, Tensor]

NEWTON_SCHULZ: Coefficients = ((3.4445, -4.7750, 2.0315),) * 5
POLAR_EXPRESS: Coefficients = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
_SECOND_MOMENT_BETA = 0.9
_TINY = 1e-10


def orthogonalize(matrices: Tensor) -> Tensor:
    """Map (N, m, n) to matrices with the same singular vectors and singular values near 1."""
    tall = matrices.size(-2) > matrices.size(-1)
    x = _as_bfloat16(matrices.mT if tall else matrices)
    x = _iterate(_rounded(x / _rounded(_frobenius(x) + 1e-7)), NEWTON_SCHULZ)
    return (x.mT if tall else x).to(matrices.dtype)


def polar_express(matrices: Tensor) -> Tensor:
    """Map (N, m, n) likewise, nearer to 1, after all rows were scaled to one norm."""
    tall = matrices.size(-2) > matrices.size(-1)
    x = _equilibrated(_as_bfloat16(matrices))
    x = _rounded(x / _rounded(_rounded(_frobenius(x) * 1.01) + 1e-6))
    x = _iterate(x.mT if tall else x, POLAR_EXPRESS)
    return (x.mT if tall else x).to(matrices.dtype)


def rescaled(updates: Tensor) -> Tensor:
    """Scale each of (N, m, n) to the Frobenius norm that exactly orthogonal matrices have."""
    rows, columns = updates.shape[-2:]
    norms: Tensor = updates.norm(dim=(-2, -1), keepdim=True)
    scale: float = min(rows, columns) ** 0.5
    return updates * (scale / norms.clamp_min(1e-6))


def with_even_variance(updates: Tensor, second_moment: Tensor) -> Tensor:
    """Divide each row (or column) by its running root mean square, keeping each matrix's norm.

    `second_moment` is updated in place: (N, m, 1) for m >= n, else (N, 1, n).
    """
    along = -1 if second_moment.size(-1) == 1 else -2
    mean_squares = updates.square().mean(dim=along, keepdim=True)
    second_moment.lerp_(mean_squares, 1.0 - _SECOND_MOMENT_BETA)
    scale = second_moment.clamp_min(_TINY).rsqrt()
    before = mean_squares.sum(dim=(-2, -1), keepdim=True).sqrt()
    after = (mean_squares * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    return updates * (scale * (before / after.clamp_min(_TINY)))


def descend(parameters: list[Tensor], updates: Tensor, lr: float, weight_decay: float) -> None:
    """Subtract updates (N, m, n) from N parameters, and decay those entries that they move towards zero."""
    if weight_decay:
        before = torch.stack(parameters)
        updates = updates.add(before * (updates * before >= 0), alpha=weight_decay)
    torch._foreach_add_(parameters, updates.unbind(), alpha=-lr)


def _nesterov(gradients: Tensor, momentum_buffer: Tensor, momentum: float) -> Tensor:
    """Update the buffer; return the gradients (overwritten) mixed with it."""
    momentum_buffer.lerp_(gradients, 1.0 - momentum)
    return gradients.lerp_(momentum_buffer, momentum)


def _iterate(x: Tensor, coefficients: Coefficients) -> Tensor:
    """Apply odd quintic polynomials to the singular values of wide matrices.

    It rounds where upstream's operations do.
    """
    for a, b, c in coefficients:
        gram = _rounded(x @ x.mT)
        poly = _rounded(_rounded(b * gram) + _rounded(_rounded(c * gram) @ gram))
        x = _rounded(_rounded(a * x) + _rounded(poly @ x))
    return x


def _equilibrated(x: Tensor) -> Tensor:
    wide = x.float()
    mean_norm = wide.norm(dim=(-2, -1), keepdim=True) / x.size(-2) ** 0.5
    row_norms = wide.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return _rounded(x * _rounded((mean_norm / row_norms).to(x.dtype)))


def _frobenius(x: Tensor) -> Tensor:
    return _rounded(x.norm(dim=(-2, -1), keepdim=True))


def _as_bfloat16(matrices: Tensor) -> Tensor:
    return matrices.bfloat16() if multiplies_bfloat16(matrices.device.type) else _rounded(matrices)


def _rounded(x: Tensor) -> Tensor:
    """Return the values that a bfloat16 tensor would hold; such a tensor is rounded already."""
    return x if x.dtype == torch.bfloat16 else x.bfloat16().float()


@functools.cache
def multiplies_bfloat16(device_type: str) -> bool:
    """Return whether a device has instructions for products of bfloat16 matrices."""
    if device_type != "cpu":
        return True
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


@dataclass(frozen=True)
class MatrixRule:
    """How gradients become updates: which state a matrix has, and what happens in a step."""

    state_shapes: Callable[[torch.Size], dict[str, tuple[int, ...]]]
    """From a matrix's shape to the shapes of its state."""
    updates: Callable[[Tensor, State, float], Tensor]
    """From gradients (N, m, n), which may be overwritten, stacked state and momentum to updates (N, m, n)."""


def _classic_state(shape: torch.Size) -> dict[str, tuple[int, ...]]:
    return {"momentum": tuple(shape)}


def _classic_updates(gradients: Tensor, state: State, momentum: float) -> Tensor:
    return orthogonalize(_nesterov(gradients, state["momentum"], momentum))


def _normalized_state(shape: torch.Size) -> dict[str, tuple[int, ...]]:
    rows, columns = shape
    return {"momentum": (rows, columns), "second_moment": (rows, 1) if rows >= columns else (1, columns)}


def _normalized_updates(gradients: Tensor, state: State, momentum: float) -> Tensor:
    updates = polar_express(_nesterov(gradients, state["momentum"], momentum))
    return with_even_variance(rescaled(updates), state["second_moment"])


CLASSIC = MatrixRule(_classic_state, _classic_updates)
NORMALIZED = MatrixRule(_normalized_state, _normalized_updates)


@dataclass
class _Stack:
    """Matrices of one shape and their state, (N, ...) each."""

    matrices: dict[str, Tensor]
    state: State


class Muon:
    """The optimizer of matrices: each is updated from its `grad`, together with all of its shape."""

    def __init__(
        self, matrices: Mapping[str, Tensor], rule: MatrixRule, *, lr: float, weight_decay: float = 0.0
    ) -> None:
        self._rule, self._lr, self._weight_decay = rule, lr, weight_decay
        by_shape: dict[torch.Size, dict[str, Tensor]] = defaultdict(dict)
        for name, matrix in matrices.items():
            by_shape[matrix.shape][name] = matrix
        self._stacks = [
            _Stack(same, {k: _zeros(same, s) for k, s in rule.state_shapes(shape).items()})
            for shape, same in by_shape.items()
        ]

    @torch.no_grad()
    def step(self, lr_multiplier: float, momentum: float, weight_decay_multiplier: float = 1.0) -> None:
        """Update all matrices from their gradients."""
        for stack in self._stacks:
            gradients = torch.stack([_gradient(name, matrix) for name, matrix in stack.matrices.items()])
            updates = self._rule.updates(gradients, stack.state, momentum)
            rows, columns = updates.shape[-2:]
            lr = self._lr * lr_multiplier * max(1.0, rows / columns) ** 0.5
            decay = self._weight_decay * weight_decay_multiplier
            descend(list(stack.matrices.values()), updates, lr, decay)

    def state(self) -> dict[str, State]:
        """Return the state of each matrix by its name, as views."""
        return {
            name: {key: stacked[index] for key, stacked in stack.state.items()}
            for stack in self._stacks
            for index, name in enumerate(stack.matrices)
        }


def _zeros(matrices: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    return next(iter(matrices.values())).new_zeros((len(matrices), *shape))


def _gradient(name: str, matrix: Tensor) -> Tensor:
    if matrix.grad is None:
        raise ValueError(f"{name} has no gradient")
    return matrix.grad
