"""Memory of weights that lie in a mapped file: what is no longer needed of it need not stay in memory.

A mapped file's pages can be read again, so the system may drop them at any time; it does so only when memory
is short, and until then they count as this process's. Linux only; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

from torch import Tensor

_PAGE_OUT = 21  # MADV_PAGEOUT of Linux 5.4: never loses content, unlike MADV_DONTNEED


def let_go(tensor: Tensor) -> None:
    """Let the system drop the pages of a tensor that will hardly be read again; its content stays."""
    if sys.platform != "linux" or not tensor.is_cpu:
        return
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _PAGE_OUT)  # a hint: it may fail
