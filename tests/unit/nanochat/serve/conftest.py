from __future__ import annotations

import httpx
import pytest

from nanochat.serve.serve_settings import ServeSettings
from tests.support.serving import server_here, tiny_engine


@pytest.fixture(scope="package")
def address():
    """A server whose model answers everything with the sum of three and four."""
    with server_here(ServeSettings(), tiny_engine) as (url, _):
        yield url


@pytest.fixture
def client(address):
    """A client of that server which leaves everything to the test."""
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
        yield client
