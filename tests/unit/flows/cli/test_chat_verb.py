"""Before its first answer the verb `chat` imports no more than that needs, and takes any standard input."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flows.cli.app import app
from nanochat.errors import DataError
from tests.support.serving import write_tiny_model

_NOT_NEEDED = {
    *("fastapi", "huggingface_hub", "matplotlib", "mlflow", "pandas", "polars", "prefect", "prompt_toolkit"),
    *("pyarrow", "pygments", "rich", "sentencepiece", "torch._dynamo", "torch._inductor"),
    *("transformers", "triton", "uvicorn"),
}


_CODE = """
import sys
from flows.cli.app import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def test_one_answer_starts_without_the_heavy_packages(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", _CODE, "chat", str(model), "-p", "hi"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NANOCHAT_HOME": str(tmp_path / "home")},
    )
    assert done.stdout == "Let me see: [3+4 = 7]  That makes **7**, or 日本語.\n"
    imported = set(done.stderr.split())
    assert {"torch", "flows.cli.chat"} <= imported
    assert imported & _NOT_NEEDED == set()


def test_a_closed_standard_input_is_an_empty_one(tmp_path, monkeypatch, capsys):
    model = str(write_tiny_model(tmp_path / "model"))
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="the message is empty"):
        app(["chat", model, "-p", "-"], standalone_mode=False)
    sys.stdin = None
    app(["chat", model], standalone_mode=False)
    assert capsys.readouterr().out == ""
