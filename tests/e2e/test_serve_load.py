"""A crowd at the server: nobody waits for ever, and everybody gets the answer that they would get alone."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.serve_load import load, write_random_model
from tests.support.serving import running_server

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("serve")]


def test_64_clients_get_the_answers_that_they_would_get_alone(tmp_path):
    model = write_random_model(tmp_path / "model")
    with running_server(model, "--queue", "32", home=tmp_path / "home") as server:
        found = asyncio.run(load(server.url, server.process.pid, clients=64, seconds=8))
        print(f"{dict(found.ends)}; first event within {found.percentile(0.99):.2f} s of 99 %")
        assert found.wrong == []
        assert min(found.ends[end] for end in ("streamed", "whole", "left", "malformed", "no place")) > 5
        # Who went away was noticed: a moment later nothing is written or waited for.
        ended_by = time.monotonic() + 10
        while server.metric("nanochat_running_answers") or server.metric("nanochat_waiting_answers"):
            assert time.monotonic() < ended_by
            time.sleep(0.05)
        assert server.metric('nanochat_requests_total{outcome="failed"}') == 0
        settled = found.memory_bytes[len(found.memory_bytes) // 2]
        assert found.memory_bytes[-1] < 1.1 * settled
        assert not any("Traceback" in line for line in server.errors)
