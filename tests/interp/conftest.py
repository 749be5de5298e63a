"""Tests of the Triton kernels in Triton's CPU interpreter.

The interpreter and the compiler cannot share a process, so that a plain `pytest` leaves this folder out and
`tests/unit/kernels/test_interpreter.py` runs it in processes of its own. By hand:
`TRITON_INTERPRET=1 uv run pytest -n 0 tests/interp`.
"""

from __future__ import annotations

import os

if os.environ.get("TRITON_INTERPRET") == "1":
    from tests.support.kernels.interpreter import repair

    repair()
else:
    collect_ignore_glob = ["test_*.py"]
