"""The ops without Triton, as on macOS, and without the compiler, which takes seconds to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

CODE = """
import importlib, importlib.util, pathlib, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "triton" else find_spec(name, *a)
sys.modules["triton"] = None
import torch
names = [".".join(path.with_suffix("").parts) for path in pathlib.Path("kernels").rglob("*.py")]
assert "kernels.linear_cross_entropy.gpu" in names
for name in names:
    importlib.import_module(name.removesuffix(".__init__"))
from kernels.linear_cross_entropy.op import linear_cross_entropy
hidden = torch.ones(5, 8, requires_grad=True)
linear_cross_entropy(hidden, torch.ones(9, 8), torch.arange(5)).backward()
assert hidden.grad is not None
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""


def test_ops_run_on_a_machine_without_triton_and_do_not_import_the_compiler():
    command = [sys.executable, "-c", CODE]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
