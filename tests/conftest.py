"""Fixtures that all tests share: where recorded data is, and a quiet environment."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Tests run side by side: threads that wait for each other on a busy core are several times slower than one.
# Set before anything imports a library that reads it; child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from nanochat.model import reproducible

# Tests of kernels multiply before any model is made.
os.environ.setdefault(reproducible.VARIABLE, reproducible.MODE)

from tests.support.s3_server import s3_server, s3_store_url  # noqa: F401 - fixtures

hypothesis.settings.register_profile("quiet", deadline=None)  # a busy machine is not a failure
hypothesis.settings.load_profile("quiet")

_SHARED = Path(__file__).parents[2] / "shared"


def _shared(part: str) -> Path:
    folder = _SHARED / part
    if not folder.is_dir():
        pytest.skip(f"no folder {part!r} of recorded data beside this checkout")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real shards, tasks and conversations; skips where there is none."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """Folder of recorded outputs of upstream nanochat; skips where there is none."""
    return _shared("golden")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that differ from process to process: workers side by side would not agree on the tests."""
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:
        raise pytest.UsageError(f"a test's name holds an address in memory: {unstable[0]}")
