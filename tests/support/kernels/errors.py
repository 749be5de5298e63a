"""How far a result is from the truth, and how far it may be."""

from __future__ import annotations

import torch
from torch import Tensor

# Relative error ||x - truth|| / ||truth|| of an op whose sums are float32.
TOLERANCE = {
    torch.float32: 2e-6,  # sums of up to 1,000 float32 terms rounded at 6e-8, exponentials of rounded numbers
    torch.float16: 2e-3,  # roundings of 2^-11 to the output and to two intermediates, of which one is a logit
    torch.bfloat16: 1.6e-2,  # the same with 2^-8
}


def relative_error(result: Tensor, truth: Tensor, least: float = 1e-30) -> float:
    """Return ||result - truth|| / ||truth|| (or `least`, if more); NaN in the result gives NaN."""
    return float((result.double() - truth).norm() / truth.norm().clamp(min=least))


def assert_close_to_truth(
    result: Tensor, plain: Tensor, truth: Tensor, dtype: torch.dtype, least: float = 1e-30
) -> None:
    """Fail if the result is beyond the inputs' dtype's tolerance or worse than twice plain PyTorch's.

    A result of float32 sums may be 1e-6 off where PyTorch happens to be closer: both are at the last bits.
    """
    error, reference = relative_error(result, truth, least), relative_error(plain, truth, least)
    assert error <= TOLERANCE[dtype], f"relative error {error:.1e}"
    assert error <= max(2 * reference, 1e-6), f"relative error {error:.1e}, plain PyTorch has {reference:.1e}"
