"""Weights in fewer bytes for a model that only writes: bfloat16, int8 or int4 in place of float32.

On a CPU, writing a token takes as long as reading the weights does, so fewer bytes are faster. Embedding
tables become bfloat16; norms, the residual stream, attention and the cap of the logits stay float32.

int8: a scale for each row of a weight, and for each row of activations. A row's result depends on that row
alone, down to the bit, whatever else is computed with it. Measured on an AMD EPYC with VNNI, two threads, as
share of what a plain read reaches (28 GB/s): PyTorch's int8 product 75 to 85 %, oneDNN's 63 %, weight-only
int8 in bfloat16 27 %, bfloat16 47 %, float32 44 %. What lies between the products takes nearly as long
as they do, and no less when inductor compiles it: entering a compiled part costs more than it saves.
int4: a scale and a zero for every 32 weights of a row, activations in bfloat16 (47 %); the head stays int8.
Groups of 128 would be 12 % quicker, with a quarter more error.

A converted model can neither be trained nor saved. Not here: which kind suits a model best in quality
(`nanochat info` measures it).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanochat.config import ModelConfig
from nanochat.errors import ConfigError
from nanochat.model.attention import Attention, Linear
from nanochat.model.flops import parameter_counts
from nanochat.model.gpt import GPT, MLP, Embedding
from nanochat.model.mapped_memory import let_go

WeightKind = Literal["float32", "bfloat16", "int8", "int4"]
KINDS: tuple[WeightKind, ...] = get_args(WeightKind)

_SMALL_BYTES = 64 * 2**20  # about what caches hold: there, reading weights is not what takes the time
_GROUP = 32  # weights of an int4 scale
_INT8_ROW = 12  # bytes beside the weights of a row: scale, zero, sum
_LEAST = 1e-30  # of a row's largest activation, so that a row of zeros has a scale


def best_kind(config: ModelConfig, device: torch.device) -> WeightKind:
    """Return what is quick: bfloat16 on a GPU, on a CPU int8, but float32 for small models."""
    if device.type != "cpu":
        return "bfloat16"
    small = 4 * sum(parameter_counts(config).values()) < _SMALL_BYTES
    return "float32" if small or not _has_int8() else "int8"


def kinds_on(device: torch.device) -> tuple[WeightKind, ...]:
    """Return the kinds that a device computes with."""
    return KINDS if device.type == "cpu" and _has_int8() else ("float32", "bfloat16")


def weight_bytes(model: GPT) -> int:
    """Return the memory that a model's weights take, scales included."""
    size = sum(weight.nbytes for weight in model.parameters())
    for module in model.modules():
        if isinstance(module, Int8Product | Int4Product):
            size += module.nbytes
        elif isinstance(module, BFloat16Table):
            size += module.weight.nbytes
    return size


def use_weights(model: GPT, kind: str) -> WeightKind:
    """Turn a float32 model's weights into a kind, for inference alone; return it.

    `auto` is the kind that is quick on the model's device. Raises ConfigError for an unknown kind, and for
    int8 and int4 where this processor or a GPU cannot compute with them.
    """
    kinds: dict[str, WeightKind] = {"auto": best_kind(model.config, model.device)}
    kinds |= {name: name for name in KINDS}
    if kind not in kinds:
        raise ConfigError(f"weights are {kind!r}", hint=f"use one of {', '.join(kinds)}")
    chosen = kinds[kind]
    if chosen in ("int8", "int4"):
        if model.device.type != "cpu":
            raise ConfigError(
                f"weights are {kind!r} and the device is {model.device}",
                hint="int8 and int4 are for CPUs; use bfloat16",
            )
        if not _has_int8():
            raise ConfigError(f"weights are {kind!r}; PyTorch has no such products here", hint="use float32")
        _convert(model, chosen)
    elif chosen == "bfloat16":
        model.compute_in(torch.bfloat16)
    return chosen


class Int8Product(nn.Module):
    """A linear map by int8 weights, of one or more maps stacked."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        """Take float weights (m, n)."""
        super().__init__()
        weight = torch.cat([*weights]) if len(weights) > 1 else weights[0]
        scale = torch.linalg.vector_norm(weight.float(), torch.inf, dim=1).div_(127).clamp_min_(_LEAST)
        zero = torch.zeros(len(weight), dtype=torch.long)
        with (
            warnings.catch_warnings()
        ):  # quantised tensors will go; no other entry packs a scale for each row
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            rows = torch.quantize_per_channel(weight.float(), scale.double(), zero, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(rows, None)
        self.nbytes = rows.numel() + len(rows) * _INT8_ROW
        # Without VNNI pairs of products are added in 16 bits, which eight bits of activations overflow.
        self._steps = 127 if _has_vnni() else 63  # on either side of zero

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n) to (..., m) in float32."""
        rows = x.reshape(-1, x.size(-1))
        top = rows.abs().amax(dim=1, keepdim=True).clamp_min_(_LEAST)
        out = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / top, 1 / self._steps, self._steps + 1, self._packed
        )
        scaled: Tensor = out.mul_(top).view(*x.shape[:-1], -1)
        return scaled


class Int4Product(nn.Module):
    """A linear map by int4 weights in groups, of one or more maps stacked."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        """Take float weights (m, n), n a multiple of the group and m of 16."""
        super().__init__()
        weight = torch.cat([*weights]) if len(weights) > 1 else weights[0]
        groups = weight.float().view(len(weight), -1, _GROUP)
        low, high = groups.aminmax(dim=-1, keepdim=True)
        scale = ((high - low) / 15).clamp_min_(_LEAST)
        four_bits = ((groups - low) / scale).round_().clamp_(0, 15).to(torch.int32).view(weight.shape)
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(four_bits, 1)
        scales_and_zeros = torch.cat((scale, low + 8 * scale), dim=-1)  # (m, groups, 2)
        self._scales = scales_and_zeros.transpose(0, 1).contiguous().bfloat16()
        self.nbytes = self._packed.nbytes + self._scales.nbytes

    @staticmethod
    def fits(weights: Sequence[Tensor]) -> bool:
        """Return whether weights have a shape that can be packed."""
        return sum(map(len, weights)) % 16 == 0 and weights[0].size(1) % _GROUP == 0

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n) to (..., m) in float32."""
        rows = x.reshape(-1, x.size(-1)).bfloat16()
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self._packed, _GROUP, self._scales)
        full: Tensor = out.float().view(*x.shape[:-1], -1)
        return full


class BFloat16Table(nn.Module):
    """An embedding in half the bytes, whose rows are read as float32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.bfloat16())
        self.weight: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Map ids (B, T) to (B, T, C)."""
        return F.embedding(input, self.weight).float()


@torch.inference_mode()
def _convert(model: GPT, kind: WeightKind) -> None:
    """Replace maps and tables one by one, each of which is let go before the next is made."""

    for module in [*model.modules()]:
        if isinstance(module, Attention):
            module.c_qkv = _product(kind, module.c_q, module.c_k, module.c_v)
            del module.c_q, module.c_k, module.c_v
            module.c_proj = _product(kind, module.c_proj)
        elif isinstance(module, MLP):
            module.c_fc, module.c_proj = _product(kind, module.c_fc), _product(kind, module.c_proj)
    model.lm_head = _product("int8", model.lm_head)  # what is rounded last counts most
    for module in [*model.modules()]:  # tables come after what frees memory
        for name, child in [*module.named_children()]:
            if isinstance(child, Embedding):
                module.add_module(name, BFloat16Table(child.weight.detach()))


def _product(kind: WeightKind, *maps: nn.Module) -> nn.Module:
    """Return one map in place of some."""
    weights = [map_.weight.detach() for map_ in maps if isinstance(map_, Linear)]
    made = Int4Product if kind == "int4" and Int4Product.fits(weights) else Int8Product
    product = made(weights)
    for weight in weights:
        let_go(weight)
    return product


def _has_int8() -> bool:
    return torch.backends.quantized.engine != "none"


def _has_vnni() -> bool:
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_vnni") or has.get("avx_vnni") or has.get("architecture") == "aarch64")
