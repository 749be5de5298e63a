"""Sizes in memory that a kernel chooses for itself; estimates read them too, without loading PyTorch."""

from __future__ import annotations

LOGIT_CHUNK_BYTES = 3 << 28  # of the loss on a GPU: 6,144 tokens at a vocabulary of 65,536, in bfloat16
