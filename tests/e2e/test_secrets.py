"""Passwords and tokens of the environment are in nothing that a whole run leaves behind."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import CANARY, SECRETS

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # the first of its group starts the server and makes the runs
    pytest.mark.xdist_group("prefect"),
]


def test_no_secret_of_the_environment_is_in_anything_that_a_run_leaves(small_runs, prefect_folder):
    assert all(CANARY in value for value in SECRETS.values())
    folders = (small_runs.nanochat.home, prefect_folder)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    read = {path: path.read_bytes() for path in files}
    named = {path.name for path in files}
    assert {"prefect.db", "server.log", "mlflow.db", "README.md"} <= named
    assert any("records" in path.parts for path in files)
    for marker in (b"prefect_url", b"nanochat.recipe", b"toy"):  # what is looked through has what could leak
        assert any(marker in content for content in read.values())
    assert [str(path) for path, content in read.items() if CANARY.encode() in content] == []
    for done in small_runs.done:
        assert CANARY not in done.stdout + done.stderr
