"""The weights of a classic model as llama.cpp's architecture Apertus has them, in the types of its files.

Apertus is the classic model but for four things that the tensors can say: it does not norm embeddings (their
rows are normed here), turns queries and keys the other way (the halves of each head are swapped), and has
learned norms (ones, as a rule). Its activation xIELU is the squared relu with the constants of `gguf_file`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from nanochat.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from nanochat.model.gpt import GPT

WeightType = Literal["f32", "bf16", "f16", "q8_0", "q4_K"]
_SUPER, _SUB = 256, 32  # weights of a q4_K block, and of each of its scales
_NEXT: dict[WeightType, tuple[int, WeightType]] = {"q4_K": (_SUPER, "q8_0"), "q8_0": (_SUB, "bf16")}
"""Types whose rows are whole blocks, and what a matrix is in whose rows are not."""
# Squares of large activations are too large for float16, in which GPUs, and files of f16, multiply. The norm
# before an MLP makes its input smaller, the weights behind the squares are larger: by powers of two, exactly.
_MLP_INPUT = 2.0**-4
_LARGEST: dict[WeightType, float] = {"f16": 65_520.0, "q8_0": 127 * 65_520.0, "q4_K": 15 * 65_520.0}


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor of the file, made when it is written: all of them at once would double a model's memory."""

    name: str
    shape: tuple[int, ...]
    kind: WeightType
    weight: Callable[[], Tensor]

    def encoded(self) -> npt.NDArray[Any]:
        """Return its numbers, or its blocks as rows of bytes."""
        from gguf.quants import quantize

        array = self.weight().detach().cpu().float().contiguous().numpy()
        largest, limit = float(np.abs(array).max()), _LARGEST.get(self.kind, math.inf)
        if not largest < limit:  # nor is a weight that is not a number
            raise DataError(
                f"the largest weight of {self.name} is {largest:g}; {self.kind} holds less than {limit:g}",
                hint="use --type bf16 or f32, unless the model is damaged",
            )
        if self.kind == "q4_K":
            return _q4_k(array)
        found: npt.NDArray[Any] = quantize(array, library_type(self.kind))
        return found


def library_type(kind: WeightType) -> Any:
    """Return what `gguf` calls a type."""
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[kind.upper()]


def tensors_of(model: GPT, kind: WeightType) -> Iterator[GGUFTensor]:
    """Yield the tensors in the order of the file: matrices in the type, norms in float32."""
    import torch

    config, state = model.config, model.state_dict()
    width, head = config.n_embd, config.n_embd // config.n_head

    def matrix(
        name: str, ours: str, change: Callable[[Tensor], Tensor] | None = None, kind: WeightType = kind
    ) -> GGUFTensor:
        weight = state[ours]
        rows, columns = weight.shape
        make = (lambda: weight) if change is None else partial(change, weight)
        return GGUFTensor(name, (rows, columns), _fitting(kind, columns), make)

    def norm(name: str, size: int, value: float = 1.0) -> GGUFTensor:
        return GGUFTensor(name, (size,), "f32", lambda: torch.full((size,), value))

    yield matrix("token_embd.weight", "transformer.wte.weight", _normed)
    yield norm("output_norm.weight", width)
    # With four bits, the head alone would lose as much as all other matrices.
    yield matrix("output.weight", "lm_head.weight", kind="q8_0" if kind == "q4_K" else kind)
    for layer in range(config.n_layer):
        theirs, ours = f"blk.{layer}.", f"transformer.h.{layer}."
        yield norm(f"{theirs}attn_norm.weight", width)
        yield norm(f"{theirs}attn_q_norm.weight", head)
        yield norm(f"{theirs}attn_k_norm.weight", head)
        for name in ("q", "k"):
            swapped = partial(_halves_swapped, head=head)
            yield matrix(f"{theirs}attn_{name}.weight", f"{ours}attn.c_{name}.weight", swapped)
        yield matrix(f"{theirs}attn_v.weight", f"{ours}attn.c_v.weight")
        yield matrix(f"{theirs}attn_output.weight", f"{ours}attn.c_proj.weight")
        yield norm(f"{theirs}ffn_norm.weight", width, _MLP_INPUT)
        yield matrix(f"{theirs}ffn_up.weight", f"{ours}mlp.c_fc.weight")
        yield matrix(f"{theirs}ffn_down.weight", f"{ours}mlp.c_proj.weight", _of_smaller_input)


def _fitting(kind: WeightType, columns: int) -> WeightType:
    while kind in _NEXT and columns % _NEXT[kind][0]:
        kind = _NEXT[kind][1]
    return kind


def _normed(weight: Tensor) -> Tensor:
    from torch.nn.functional import rms_norm

    from nanochat.model.attention import RMS_EPS

    return rms_norm(weight.float(), (weight.size(1),), eps=RMS_EPS)


def _halves_swapped(weight: Tensor, head: int) -> Tensor:
    return weight.view(-1, 2, head // 2, weight.size(1)).flip(1).reshape(weight.shape)


def _of_smaller_input(weight: Tensor) -> Tensor:
    return weight / _MLP_INPUT**2


def _q4_k(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return rows of weights in llama.cpp's blocks: 256 of 4 bits, with 8 scales and 8 minima of 6 bits."""
    parts = array.reshape(-1, _SUPER // _SUB, _SUB)
    low = np.minimum(parts.min(-1), 0)
    d, scales, steps = _six_bits((parts.max(-1) - low) / 15)
    dmin, minima, offsets = _six_bits(-low)
    q = np.clip(np.rint(_divided(parts + offsets[..., None], steps[..., None])), 0, 15).astype(np.uint8)
    packed = (q[:, 0::2] | q[:, 1::2] << 4).reshape(len(q), -1)  # 32 low nibbles share bytes with the next 32
    first, last = (of[:, :4] | (of[:, 4:] >> 4) << 6 for of in (scales, minima))
    mixed = np.concatenate([first, last, (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4], axis=-1)
    blocks = np.concatenate([d.view(np.uint8), dmin.view(np.uint8), mixed, packed], axis=-1)
    return blocks.reshape(len(array), -1)


def _six_bits(
    values: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return a factor for each row, which of its multiples each value is, and what that comes to."""
    factor = (values.max(-1, keepdims=True) / 63).astype(np.float16)
    wide = factor.astype(np.float32)
    multiples = np.clip(np.rint(_divided(values, wide)), 0, 63)
    return factor, multiples.astype(np.uint8), wide * multiples


def _divided(values: npt.NDArray[np.float32], by: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return quotients, 0 where all of a block is 0."""
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)
