"""Repairs for Triton's CPU interpreter (TRITON_INTERPRET=1), so that it computes what a GPU computes.

The stock interpreter keeps bfloat16 as bare 16-bit integers and multiplies those; it also truncates where a
GPU rounds to nearest even. `repair()` patches it in place: bfloat16 arithmetic, dot, sums, casts and atomics,
fp8 rounding, descriptor reductions, the few inline instructions that our kernels use, float arguments as
float32, and scalars as loop bounds. Call it after importing triton and before the first launch. Not modelled,
and only a GPU can show: races, asynchronous copies, tf32, the error of approximate instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

_Handle = interpreter.TensorHandle
_Builder = interpreter.InterpreterBuilder

_FP8 = {tl.float8e4nv: torch.float8_e4m3fn, tl.float8e5: torch.float8_e5m2}


def _pair(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return words of two bfloat16 numbers."""
    return (narrow(high).astype(np.uint32) << 16 | narrow(low)).view(np.int32)


_INLINE = {
    "tanh.approx.f32": np.tanh,
    "ex2.approx.ftz.f32": np.exp2,
    "ex2.approx.f32": np.exp2,
    "rcp.approx.ftz.f32": lambda x: 1 / x,
    "cvt.rn.bf16x2.f32": _pair,
}


def widen(bits: np.ndarray) -> np.ndarray:
    """Return the float32 values of bfloat16 bits: exact."""
    return (np.asarray(bits, order="C").astype(np.uint32) << 16).view(np.float32)


def narrow(values: np.ndarray) -> np.ndarray:
    """Round float32 values to bfloat16 bits, to nearest even."""
    values = np.asarray(values, dtype=np.float32, order="C")
    bits = values.view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def repair() -> None:
    """Patch the interpreter; a second call changes nothing."""
    if getattr(_Builder, "repaired", False):
        return
    _Builder.repaired = True
    _repair_casts()
    _repair_arithmetic()
    _repair_memory()
    _add_inline_instructions()
    _round_float_arguments()
    _count_with_scalars()


def _is_bf16(handle: Any) -> bool:
    return bool(handle.dtype.scalar == tl.bfloat16)


def _as_f32(handle: Any) -> Any:
    """Return a 16-bit float operand as float32 (float16 too, whose numpy products are slow)."""
    if _is_bf16(handle):
        return _Handle(widen(handle.data), tl.float32)
    if handle.dtype.scalar == tl.float16:
        return _Handle(handle.data.astype(np.float32), tl.float32)
    return handle


def _repair_casts() -> None:
    stock_cast, stock_fp_to_fp = _Builder.cast_impl, _Builder.create_fp_to_fp

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        source, target = src.dtype.scalar, dst_type.scalar
        if source == target == tl.bfloat16:
            return _Handle(src.data, target)
        if source == tl.bfloat16:
            wide = _Handle(widen(src.data), tl.float32)
            return wide if target == tl.float32 else stock_cast(self, wide, dst_type)
        if target == tl.bfloat16:
            return _Handle(narrow(src.data.astype(np.float32)), target)
        return stock_cast(self, src, dst_type)

    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        source, target = src.dtype.scalar, dst_type.scalar
        if target == tl.bfloat16 and str(rounding_mode).endswith("RTZ"):
            return _Handle((np.ascontiguousarray(src.data).view(np.uint32) >> 16).astype(np.uint16), target)
        if source == tl.float32 and target in _FP8:
            rounded = torch.from_numpy(np.ascontiguousarray(src.data)).to(_FP8[target])
            return _Handle(rounded.view(torch.uint8).numpy(), target)
        if tl.bfloat16 in (source, target):
            return cast_impl(self, src, dst_type)
        return stock_fp_to_fp(self, src, dst_type, rounding_mode)

    _Builder.cast_impl, _Builder.create_fp_to_fp = cast_impl, create_fp_to_fp


def _repair_arithmetic() -> None:
    stock_binary, stock_unary, stock_dot = _Builder.binary_op, _Builder.unary_op, _Builder.create_dot
    stock_sum = interpreter.ReduceOps.sum

    def binary_op(self: Any, left: Any, right: Any, op: Callable[..., np.ndarray]) -> Any:
        if not (_is_bf16(left) and _is_bf16(right)):
            return stock_binary(self, left, right, op)
        out = op(widen(left.data), widen(right.data))
        return _Handle(out, tl.int1) if out.dtype == bool else _Handle(narrow(out), tl.bfloat16)

    def unary_op(self: Any, arg: Any, op: Callable[..., np.ndarray]) -> Any:
        if not _is_bf16(arg):
            return stock_unary(self, arg, op)
        return _Handle(narrow(op(widen(arg.data))), tl.bfloat16)

    def create_dot(self: Any, a: Any, b: Any, d: Any, precision: Any, max_imprecise: Any) -> Any:
        return stock_dot(self, _as_f32(a), _as_f32(b), d, precision, max_imprecise)

    def sum_(self: Any, operand: Any) -> Any:
        if operand.dtype != tl.bfloat16:
            return stock_sum(self, operand)
        total = np.sum(widen(operand.handle.data), axis=self.axis, keepdims=self.keep_dims)
        return self.to_tensor(narrow(total), operand.dtype)

    _Builder.binary_op, _Builder.unary_op, _Builder.create_dot = binary_op, unary_op, create_dot
    _Builder.get_bf16 = lambda self, value: _Handle(narrow(np.array([value], np.float32)), tl.bfloat16)
    interpreter.ReduceOps.sum = sum_


def _repair_memory() -> None:
    stock_atomic = _Builder.create_atomic_rmw
    combine = {"ADD": np.add, "MIN": np.minimum, "MAX": np.maximum}

    def load(pointers: Any, mask: np.ndarray, dtype: Any) -> np.ndarray:
        kind = interpreter._get_np_dtype(dtype)
        return interpreter._interpreter.load(pointers.data, mask, np.zeros(pointers.data.shape, kind), kind)

    def create_atomic_rmw(self: Any, op: Any, ptr: Any, val: Any, mask: Any, sem: Any, scope: Any) -> Any:
        if not _is_bf16(val):
            return stock_atomic(self, op, ptr, val, mask, sem, scope)
        # Programs run one after another, so that load, add, store cannot be interrupted.
        old = load(ptr, mask.data, tl.bfloat16)
        interpreter._interpreter.store(ptr.data, narrow(widen(old) + widen(val.data)), mask.data)
        return _Handle(old, tl.bfloat16)

    def create_descriptor_reduce(self: Any, kind: Any, desc: Any, value: Any, indices: Any) -> None:
        pointers, mask = desc.materialize_pointers(indices)
        mask = mask.data if isinstance(mask, _Handle) else mask
        op = combine[str(kind).split(".")[-1]]
        old = load(pointers, mask, value.dtype.scalar)
        new = narrow(op(widen(old), widen(value.data))) if _is_bf16(value) else op(old, value.data)
        interpreter._interpreter.store(pointers.data, new, mask)

    _Builder.create_atomic_rmw = create_atomic_rmw
    if not hasattr(_Builder, "create_descriptor_reduce"):
        _Builder.create_descriptor_reduce = create_descriptor_reduce


class _OneResult:
    """Looks like the operation with several results that the semantic layer expects."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def get_result(self, index: int) -> Any:
        return self._handle


def _add_inline_instructions() -> None:
    from triton.language.extra import libdevice

    def create_inline_asm(
        self: Any, asm: str, constraints: str, values: Any, types: Any, pure: bool, pack: int
    ) -> _OneResult:
        name = asm.split()[0]
        if name not in _INLINE:
            raise NotImplementedError(f"the interpreter has no inline instruction {name!r}")
        result = _INLINE[name](*[v.data for v in values])
        dtype = tl.int32 if result.dtype == np.int32 else tl.float32
        return _OneResult(_Handle(result.astype(np.int32 if dtype == tl.int32 else np.float32), dtype))

    def elementwise(op: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
        def call(x: Any, _semantic: Any = None) -> Any:
            data = op(x.handle.data).astype(x.handle.data.dtype)
            return tl.core.tensor(_Handle(data, x.handle.dtype), x.type)

        return call

    _Builder.create_inline_asm = create_inline_asm
    functions = {"tanh": np.tanh, "log1p": np.log1p, "exp2": np.exp2}
    for name, op in functions.items():
        if hasattr(libdevice, name):
            setattr(libdevice, name, elementwise(op))


def _round_float_arguments() -> None:
    stock = interpreter._implicit_cvt

    def implicit_cvt(arg: Any) -> Any:
        if isinstance(arg, float):
            return tl.tensor(_Handle(np.array([arg], np.float32), tl.float32), tl.float32)
        return stock(arg)

    interpreter._implicit_cvt = implicit_cvt


def _count_with_scalars() -> None:
    """Let a scalar be a loop bound: Triton 3.6 asks NumPy for the integer of an array, which 2.4 refuses."""
    stock = interpreter._patch_lang_tensor

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        stock(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_lang_tensor
