"""The ops of `kernels` as problems with a known answer, and what is wrong with a solution of one.

A problem has inputs, a function of ours and the same in plain PyTorch. The truth is plain PyTorch in float64
on the device, in slices of the first dimension where the whole does not fit; attention's is that of two
rows, which do not depend on the others. Used by the tests of the ops, of their variants and of races.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kernels.attention import attention, attention_reference, document_starts
from kernels.chosen import CHOSEN
from kernels.configs import BASE, VARIANTS, Row, candidates
from kernels.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_reference
from kernels.qk_norm_rotary import qk_norm_rotary, qk_norm_rotary_reference
from kernels.relu_squared import relu_squared_mlp, relu_squared_mlp_reference
from tests.support.kernels.errors import TOLERANCE, assert_close_to_truth, relative_error
from tests.support.kernels.guards import guarded, intact, poisoned_allocations

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
Size = int | str | None  # a name is one of the scale, None what d20 has


@dataclass(frozen=True)
class Scale:
    """Sizes of the large problems, and of the odd ones."""

    rows: int
    length: int
    heads: int
    vocab: int
    odd: int  # positions
    odd_vocab: int
    slice_rows: int  # of tokens whose float64 reference is computed at once

    @property
    def width(self) -> int:
        """Return the channels, 128 a head."""
        return 128 * self.heads

    @property
    def tokens(self) -> int:
        """Return the tokens of all rows."""
        return self.rows * self.length

    def size(self, asked: Size, default: str) -> int:
        """Return the size that was asked for."""
        return asked if isinstance(asked, int) else getattr(self, asked or default)


SCALES = {  # full: d20 on one of eight GPUs
    "full": Scale(
        rows=32, length=2048, heads=10, vocab=65_536, odd=2047, odd_vocab=50_257, slice_rows=2048
    ),  # d20 on one of eight GPUs
    "tiny": Scale(rows=3, length=48, heads=2, vocab=384, odd=47, odd_vocab=203, slice_rows=80),
}


@dataclass(frozen=True)
class Problem:
    """One call of an op: `inputs` have gradients, `fixed` have none, and neither have `options`."""

    ours: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: dict[str, Tensor]
    upstream: Tensor  # the gradient of the result
    fixed: dict[str, Tensor] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    whole: tuple[str, ...] = ()  # inputs, results and `upstream` that all rows share
    slices: tuple[slice, ...] = (slice(None),)  # of the first dimension, for the reference


class Draw:
    """Random tensors of one problem; without numbers on the device `meta`."""

    def __init__(self, name: str, device: str, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._random = None
        if device != "meta":
            self._random = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))

    def normal(self, *shape: int, std: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        """Return normal numbers, drawn in float32."""
        drawn = torch.randn(shape, generator=self._random, device=self.device)
        return (std * drawn).to(dtype or self.dtype)

    def uniform(self, *shape: int) -> Tensor:
        """Return float32 numbers from 0 to 1."""
        return torch.rand(shape, generator=self._random, device=self.device)

    def integers(self, limit: int, *shape: int) -> Tensor:
        """Return integers from 0 to below the limit."""
        return torch.randint(0, limit, shape, generator=self._random, device=self.device)


@dataclass(frozen=True)
class Case:
    """A problem before it is drawn, and the rows of `kernels.configs` that it uses."""

    op: str
    name: str
    dtype: torch.dtype
    make: Callable[[Draw, Scale], Problem]
    shapes: tuple[str, ...] = ("any",)  # classes of rows
    repeated: bool = False  # looked at for races

    def draw(self, device: str, scale: Scale) -> Problem:
        """Return the problem, the same each time."""
        return self.make(Draw(str(self), device, self.dtype), scale)

    def uses(self, row: Row) -> bool:
        """Return whether a kernel of the row is part of the op in this shape."""
        bits = 32 if self.dtype == F32 else 16
        return row.kernel.startswith(_PREFIXES[self.op]) and row.bits == bits and row.shape in self.shapes

    def __str__(self) -> str:
        return f"{self.op}, {self.name}, {str(self.dtype).removeprefix('torch.')}"


_PREFIXES = {
    "attention": "attention_",
    "linear_cross_entropy": "cross_entropy_",
    "relu_squared_mlp": "relu_squared_",
    "qk_norm_rotary": "qk_norm_rotary_",
}


def variants() -> list[tuple[Row, str]]:
    """Return the rows that have variants, with the name of each that is not in use."""
    in_use = {row: CHOSEN.get(row, BASE) for row in VARIANTS}
    return [(row, c.name) for row in VARIANTS for c in candidates(row) if c.name != in_use[row]]


def run(function: Callable[..., Tensor], problem: Problem) -> dict[str, Tensor]:
    """Return the result and the gradients of a function of the problem, by name."""
    leaves = {name: x.detach().requires_grad_() for name, x in problem.inputs.items()}
    out = function(**leaves, **problem.fixed, **problem.options)
    gradients = torch.autograd.grad(out, list(leaves.values()), problem.upstream)
    named = zip(leaves, gradients, strict=True)
    return {"out": out.detach(), **{f"d {name}": gradient for name, gradient in named}}


def faults(problem: Problem) -> list[str]:
    """Return what is wrong with our solution: numbers, elements left unwritten, stores out of range.

    The second run has its inputs and outputs between guards and full of NaN, elsewhere in memory: what it
    returns may not depend on that.
    """
    _poison_free_memory(problem)
    found = run(problem.ours, problem)
    wrong = _wrong_numbers(problem, found)
    apart = _guarded(problem)
    with poisoned_allocations() as made:
        again = run(problem.ours, apart)
    touched = [*made, *apart.inputs.values(), *apart.fixed.values(), apart.upstream]
    if problem.upstream.is_cuda and not made:
        wrong.append("no output came from torch.empty: unwritten elements would not be found")
    if not all(map(intact, touched)):
        wrong.append("something was stored outside of a tensor")
    return wrong + different(found, again, "between guards")


def different(one: dict[str, Tensor], other: dict[str, Tensor], when: str) -> list[str]:
    """Return which results are not the same to the bit."""
    return [f"{name} differs {when}" for name in one if not torch.equal(one[name], other[name])]


def _wrong_numbers(problem: Problem, found: dict[str, Tensor]) -> list[str]:
    truth, plain = (_reference(problem, wide=wide) for wide in (True, False))
    # Where a query sees one key, dq and dk cancel to nothing and only rounding is left: a gradient below a
    # hundredth of the one that came in counts as that.
    incoming = float(problem.upstream.double().norm())
    wrong = []
    for name, result in found.items():
        mine = result if name in problem.whole else torch.cat([result[part] for part in problem.slices])
        try:
            _compare(mine, plain[name], truth[name], problem, 1e-30 if name == "out" else incoming / 100)
        except AssertionError as error:
            wrong.append(f"{name}: {str(error).splitlines()[0]}")
    return wrong


def _compare(mine: Tensor, plain: Tensor, truth: Tensor, problem: Problem, least: float) -> None:
    dtype = next(iter(problem.inputs.values())).dtype
    if truth.numel() > 1 and truth.norm() > least:
        assert_close_to_truth(mine, plain, truth, dtype, least)
    else:  # of a single number, and of what is left of zero, twice what plain PyTorch has is chance
        error = relative_error(mine, truth, least)
        assert error <= TOLERANCE[dtype], f"relative error {error:.1e}"


def _reference(problem: Problem, *, wide: bool) -> dict[str, Tensor]:
    """Return plain PyTorch's results on the slices, in float64 or in the inputs' dtype."""
    sums: dict[str, Tensor] = {}
    rows: dict[str, list[Tensor]] = {}
    for part in _cut(problem, wide):
        for name, result in run(problem.plain, part).items():
            if name in problem.whole:
                sums[name] = sums.get(name, 0.0) + result.double()
            else:
                rows.setdefault(name, []).append(result)
    return sums | {name: torch.cat(several) for name, several in rows.items()}


def _cut(problem: Problem, wide: bool) -> Iterator[Problem]:
    def part(tensors: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
        cut = {name: x if name in problem.whole else x[rows] for name, x in tensors.items()}
        return {name: x.double() if wide and x.is_floating_point() else x for name, x in cut.items()}

    for rows in problem.slices:
        upstream = part({"upstream": problem.upstream}, rows)["upstream"]
        inputs, fixed = part(problem.inputs, rows), part(problem.fixed, rows)
        yield Problem(problem.ours, problem.plain, inputs, upstream, fixed, problem.options)


def _guarded(problem: Problem) -> Problem:
    inputs, fixed = (
        {name: guarded(x) for name, x in tensors.items()} for tensors in (problem.inputs, problem.fixed)
    )
    return Problem(problem.ours, problem.plain, inputs, guarded(problem.upstream), fixed, problem.options)


def _poison_free_memory(problem: Problem) -> None:
    """Leave NaN in memory of the sizes of results, which the allocator gives out again."""
    held = [torch.full_like(x, float("nan")) for x in (*problem.inputs.values(), problem.upstream) * 2]
    del held


def _attention(
    draw: Draw,
    scale: Scale,
    *,
    rows: Size = 3,
    length: Size = None,
    heads: tuple[int, int] | None = None,
    dim: int = 128,
    window: int | None = None,
    documents: int | None = None,
) -> Problem:
    """Draw attention; `heads` are those of queries and of keys, `documents` is the mean length of one."""
    rows, length = scale.size(rows, "rows"), scale.size(length, "length")
    q_heads, kv_heads = heads or (scale.heads, scale.heads)
    q = draw.normal(rows, length, q_heads, dim)
    k, v = (draw.normal(rows, length, kv_heads, dim) for _ in "kv")
    fixed = {}
    if documents is not None:
        fixed["lo"] = document_starts(draw.uniform(rows, length) < 1 / documents)
    picked = (slice(0, 1), slice(rows - 1, rows)) if rows > 1 else (slice(0, 1),)
    return Problem(
        *(attention, attention_reference, {"q": q, "k": k, "v": v}, draw.normal(*q.shape), fixed),
        options={"window": window},
        slices=picked,
    )


def _loss(
    draw: Draw,
    scale: Scale,
    *,
    tokens: Size = None,
    width: Size = None,
    vocab: Size = None,
    padding: int = 0,
    weights: torch.dtype | None = None,
    softcap: float | None = 15.0,
    reduction: str = "sum",
) -> Problem:
    """Draw a loss; every fifth target is ignored, the last `padding` rows of the weight are not words."""
    tokens, width = scale.size(tokens, "tokens"), scale.size(width, "width")
    vocab = scale.size(vocab, "vocab")
    targets = draw.integers(vocab, tokens)
    targets[3::5] = -1
    inputs = {
        "hidden": draw.normal(tokens, width),
        "weight": draw.normal(vocab + padding, width, std=2 * width**-0.5, dtype=weights),
    }
    one = reduction == "sum"
    upstream = draw.normal(*(() if one else (tokens,)), dtype=F32).abs() + 0.5
    return Problem(
        *(linear_cross_entropy, linear_cross_entropy_reference, inputs, upstream, {"targets": targets}),
        options={"softcap": softcap, "reduction": reduction, "valid_vocab": vocab},
        whole=("weight", "d weight", *(("out", "upstream") if one else ())),
        slices=_slices(tokens, scale.slice_rows),
    )


def _mlp(
    draw: Draw,
    scale: Scale,
    *,
    tokens: Size = None,
    width: Size = None,
    inner: int | None = None,
    weights: torch.dtype | None = None,
) -> Problem:
    tokens, width = scale.size(tokens, "tokens"), scale.size(width, "width")
    inner = inner or 4 * width
    inputs = {
        "x": draw.normal(tokens, width),
        "w_fc": draw.normal(inner, width, std=width**-0.5, dtype=weights),
        "w_proj": draw.normal(width, inner, std=inner**-0.5, dtype=weights),
    }
    return Problem(
        *(relu_squared_mlp, relu_squared_mlp_reference, inputs, draw.normal(tokens, width)),
        whole=("w_fc", "w_proj", "d w_fc", "d w_proj"),
        slices=_slices(tokens, 8 * scale.slice_rows),
    )


def _rotary(
    draw: Draw,
    scale: Scale,
    *,
    rows: Size = 3,
    length: Size = None,
    heads: int | None = None,
    dim: int = 128,
    tables: int = 1,
) -> Problem:
    """Draw rotation and norm; `tables` is 1, or one table for each row."""
    rows, length = scale.size(rows, "rows"), scale.size(length, "length")
    x = draw.normal(rows, length, heads or scale.heads, dim)
    angles = 6.28 * draw.uniform(tables, length, 1, dim // 2)
    return Problem(
        *(qk_norm_rotary, _rotary_in_its_dtype, {"x": x}, draw.normal(*x.shape)),
        fixed={"cos": angles.cos(), "sin": angles.sin()},
        whole=("cos", "sin") if tables == 1 else (),
        slices=_slices(rows, 8),
    )


def _rotary_in_its_dtype(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return qk_norm_rotary_reference(x, cos, sin)


def _slices(length: int, size: int) -> tuple[slice, ...]:
    return tuple(slice(start, min(start + size, length)) for start in range(0, length, size))


def _attention_case(name: str, dtype: torch.dtype = BF16, *, repeated: bool = False, **how: Any) -> Case:
    queries, keys = how.get("heads") or (1, 1)
    masked = queries != keys or how.get("window") is not None or "documents" in how
    shape = f"head_dim={how.get('dim', 128)}{' masked' if masked else ''}"
    return Case("attention", name, dtype, functools.partial(_attention, **how), (shape,), repeated)


def _cases(
    op: str, make: Callable[..., Problem], *rows: tuple[str, torch.dtype, dict[str, Any]]
) -> list[Case]:
    def case(name: str, dtype: torch.dtype, how: dict[str, Any]) -> Case:
        repeated = name.startswith("d20")
        return Case(op, name, dtype, functools.partial(make, **how), _classes(op, dtype, how), repeated)

    return [case(*row) for row in rows]


def _classes(op: str, dtype: torch.dtype, how: dict[str, Any]) -> tuple[str, ...]:
    """Return the classes of rows: some numbers of columns have their own if all are words, and capped."""
    if op == "linear_cross_entropy" and dtype == BF16 and not {"padding", "softcap"} & how.keys():
        return ("any", f"columns={how.get('vocab', SCALES['full'].vocab)}")
    return ("any",)


# The cases of d20 first, then odd sizes: one token, 77, 2047.
CASES = [
    _attention_case("d20", rows=None, repeated=True),
    *_cases(
        *("linear_cross_entropy", _loss),
        ("d20", BF16, {"weights": F32}),
        ("d20, token by token", BF16, {"weights": F32, "reduction": "none"}),
    ),
    *_cases("relu_squared_mlp", _mlp, ("d20", BF16, {"weights": F32})),
    *_cases("qk_norm_rotary", _rotary, ("d20", BF16, {"rows": None})),
    _attention_case("window of 2026", rows=8, window=512, repeated=True),
    _attention_case("documents, window, shared keys", heads=(4, 2), window=300, documents=150, repeated=True),
    _attention_case("odd", length="odd", heads=(2, 2)),
    _attention_case("odd, window", length="odd", heads=(2, 2), window=100),
    _attention_case("odd, documents, window", length="odd", heads=(3, 3), dim=64, documents=90, window=64),
    _attention_case("one token", length=1, heads=(2, 2), dim=64),
    _attention_case("77 tokens", length=77, heads=(3, 3), dim=64),
    _attention_case("77 tokens, documents, shared keys", length=77, heads=(4, 1), documents=20),
    _attention_case("half", F16, length=333, heads=(2, 2)),
    _attention_case("half, window of itself", F16, length=200, heads=(4, 2), dim=64, window=0),
    *_cases(
        *("linear_cross_entropy", _loss),
        (
            "odd",
            BF16,
            {"tokens": "odd", "vocab": "odd_vocab", "padding": 47, "width": 320, "reduction": "none"},
        ),
        ("all words of d20", BF16, {"tokens": 77, "width": 72, "vocab": 65_536}),
        ("all words of 2026", BF16, {"tokens": 77, "width": 72, "vocab": 32_768, "reduction": "none"}),
        ("one token", BF16, {"tokens": 1, "width": 64, "vocab": 1003}),
        ("77 tokens", BF16, {"tokens": 77, "width": 72, "vocab": 1000, "padding": 3, "softcap": None}),
        ("half", F16, {"tokens": 77, "width": 128, "vocab": 993, "padding": 7, "reduction": "none"}),
        ("float", F32, {"tokens": 77, "width": 72, "vocab": 993, "padding": 7, "reduction": "none"}),
        ("float, sum", F32, {"tokens": 250, "width": 72, "vocab": 1000, "softcap": None}),
    ),
    *_cases(
        *("relu_squared_mlp", _mlp),
        ("odd", BF16, {"tokens": "odd", "width": 320, "inner": 1288}),
        ("one token", BF16, {"tokens": 1, "width": 64}),
        ("77 tokens", BF16, {"tokens": 77, "width": 72, "inner": 200}),
        ("half", F16, {"tokens": 250, "width": 128, "inner": 264}),
        ("float", F32, {"tokens": 77, "width": 72, "inner": 200}),
    ),
    *_cases(
        *("qk_norm_rotary", _rotary),
        ("odd", BF16, {"length": "odd", "heads": 6}),
        ("one token", BF16, {"length": 1, "heads": 2}),
        ("77 tokens, a table for each row", BF16, {"length": 77, "heads": 3, "dim": 64, "tables": 3}),
        ("half", F16, {"length": 77, "heads": 5}),
        ("float", F32, {"length": 77, "heads": 3, "dim": 64}),
    ),
]
