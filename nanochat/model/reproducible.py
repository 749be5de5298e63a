"""Makes matrix products on a CPU give the same bytes with any number of threads.

PyTorch's float32 products on x86 are those of MKL. On Intel's processors MKL splits sums in other places with
other numbers of threads, unless it is in the strict mode of its conditional numerical reproducibility. It
takes a mode only until its first use in a process, and a model's rotary tables are a use. So every model sets
the mode before anything else, and training and evaluation refuse to run without it.

`AUTO,STRICT` is valid on every processor; MKL then chooses the instructions itself. Of 200 products (1 to
8,192 tokens, widths of 4 to 3,072; 2, 3, 4 and 8 threads against 1) on MKL's code for Intel, none differs in
this mode, 52 (AVX-512) and 111 (AVX2) in the default one, 94 with `COMPATIBLE`. MKL has no strict code for
AMD: there, in either mode, none of 600 products of at least 64 tokens and widths of multiples of 32 differs,
but one in twenty of smaller and odd ones. Other processors have no MKL, and nothing is set.

bfloat16 products are oneDNN's, which has no such mode: sums over 4,096 or more elements can differ, which is
twice the tokens of a forward pass on a CPU. Nor does it hold for steps on a CPU that `compute.compile`
compiles: torch's compiler writes loops for one number of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from nanochat.errors import ConfigError

logger = logging.getLogger(__name__)

VARIABLE, MODE = "MKL_CBWR", "AUTO,STRICT"
# From mkl_types.h: the flag, and the branches that have a strict mode (AUTO, AVX2, AVX512, AVX512_E1).
_STRICT, _BRANCHES = 0x10000, {2, 10, 12, 14}
_AUTO = 2
_ALL = -1  # asks for branch and flag together


def set_strict() -> bool:
    """Put MKL into a strict mode if it has not been used yet; return whether this process is in one.

    A strict mode that `MKL_CBWR` chose stays. True where there is no MKL.
    """
    mkl = _mkl()
    if mkl is None or _is_strict(mkl):
        return True
    done: bool = mkl.mkl_serv_cbwr_set(_AUTO | _STRICT) == 0
    if done and os.environ.get(VARIABLE):
        logger.warning(
            "%s is %s, which makes results depend on the number of threads: using %s",
            *(VARIABLE, os.environ[VARIABLE], MODE),
        )
    return done


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Use `count` threads for operations on the CPU, and the former number afterwards.

    Raises ConfigError if their number would change results.
    """
    import torch

    _require_strict()
    former = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def _require_strict() -> None:
    if not set_strict():
        raise ConfigError(
            "MKL was used in this process before its strict mode was set: results would change with the"
            " number of threads",
            hint=f"set {VARIABLE}={MODE} before Python starts, or make the model before other computations",
        )


def _is_strict(mkl: ctypes.CDLL) -> bool:
    mode: int = mkl.mkl_serv_cbwr_get(_ALL)
    return bool(mode & _STRICT) and (mode & ~_STRICT) in _BRANCHES


@functools.cache
def _mkl() -> ctypes.CDLL | None:
    """Return the library that holds PyTorch's own MKL; None where PyTorch has none, or none of its own."""
    import torch

    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not (torch._C.has_mkl and path.exists()):
        return None
    library = ctypes.CDLL(str(path))
    return library if hasattr(library, "mkl_serv_cbwr_set") else None
