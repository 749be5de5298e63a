"""Tests of the machine code that the Triton kernels compile to, without a GPU and with a cold cache."""

from __future__ import annotations

import os

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":  # a process that interprets cannot compile
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def cold_cache(tmp_path_factory):
    """A warm cache hides kernels that no longer compile."""
    triton = pytest.importorskip("triton")
    stock, triton.knobs.cache.dir = triton.knobs.cache.dir, str(tmp_path_factory.mktemp("triton"))
    yield
    triton.knobs.cache.dir = stock
