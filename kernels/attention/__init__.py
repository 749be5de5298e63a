"""Causal attention with windows and documents: reference, kernels for GPU and CPU."""

from kernels.attention.mask import document_starts, visible_pairs
from kernels.attention.op import attention, attention_reference

__all__ = ["attention", "attention_reference", "document_starts", "visible_pairs"]
