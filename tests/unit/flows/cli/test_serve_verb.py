"""`nanochat serve` says what is wrong before it loads anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from nanochat.errors import ConfigError, StoreError
from tests.support.serving import write_tiny_model


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Call the verb, and return the error that it raises."""
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NANOCHAT_API_KEY", "")

    def call(*words):
        return CliRunner().invoke(app, ["serve", *words]).exception

    return call


def test_an_address_for_all_needs_a_key(serve):
    error = serve("--host", "0.0.0.0")
    assert isinstance(error, ConfigError) and "NANOCHAT_API_KEY" in error.hint


def test_a_model_that_is_not_there_is_named(serve, tmp_path):
    assert isinstance(serve(), StoreError)
    assert isinstance(serve(str(tmp_path / "nowhere")), ConfigError)


def test_a_port_in_use_is_said_before_the_model_is_loaded(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["serve", str(model), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "flows", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "NANOCHAT_HOME": str(tmp_path / "home")},
        )
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and "in use" in said[0] and "--port" in said[1]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "fastapi" in imported
    assert imported & {"torch", "polars", "mlflow", "prefect", "triton"} == set()
