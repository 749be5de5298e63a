"""Tests that share something long run on one worker: the fixtures of a group are made once."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.xdist_group("together")


def test_a_group_reaches_the_scheduler(request):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("runs in one process")
    assert request.node.nodeid.endswith("@together")  # pytest-xdist reads it from here
