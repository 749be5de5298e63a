"""Rotary position and norm of queries or keys: reference, kernels for GPU and CPU."""

from kernels.qk_norm_rotary.op import RMS_EPS, qk_norm_rotary, qk_norm_rotary_reference, rotate

__all__ = ["RMS_EPS", "qk_norm_rotary", "qk_norm_rotary_reference", "rotate"]
