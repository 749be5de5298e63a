"""The loss head without its logits: reference, kernels for GPU and CPU."""

from kernels.linear_cross_entropy.op import linear_cross_entropy, linear_cross_entropy_reference

__all__ = ["linear_cross_entropy", "linear_cross_entropy_reference"]
