"""One answer imports no more than it needs."""

from __future__ import annotations

import os
import subprocess
import sys

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
