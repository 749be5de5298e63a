"""Private names of other packages may change: each use is known, with the release it was checked with."""

from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("flows", "nanochat", "kernels")

# (file, name) -> the package and the release that it was checked with. After an upgrade: see that the tests
# of the file pass, and that the package's source still means the same by the name.
CHECKED = {
    ("kernels/attention/cpu.py", "_scaled_dot_product_flash_attention_for_cpu"): ("torch", "2.13"),
    ("kernels/attention/cpu.py", "_scaled_dot_product_flash_attention_for_cpu_backward"): ("torch", "2.13"),
    ("nanochat/model/inference_weights.py", "_convert_weight_to_int4pack_for_cpu"): ("torch", "2.13"),
    ("nanochat/model/inference_weights.py", "_weight_int4pack_mm_for_cpu"): ("torch", "2.13"),
    ("nanochat/model/reproducible.py", "_C"): ("torch", "2.13"),
    ("nanochat/optim/adamw.py", "_foreach_add_"): ("torch", "2.13"),
    ("nanochat/optim/adamw.py", "_fused_adamw_"): ("torch", "2.13"),
    ("nanochat/optim/muon.py", "_foreach_add_"): ("torch", "2.13"),
    ("nanochat/optim/optimizer.py", "_foreach_mul_"): ("torch", "2.13"),
    ("nanochat/optim/optimizer.py", "_foreach_norm"): ("torch", "2.13"),
    ("nanochat/optim/sharding.py", "_foreach_copy_"): ("torch", "2.13"),
    ("nanochat/tokenizer/tokenizer.py", "_encode_single_piece"): ("tiktoken", "0.14"),
    ("nanochat/tracking/mlflow_sink.py", "_dispose_engine"): ("mlflow", "3.17"),
}
_DOCUMENTED = {"_exit", "_fields", "_replace"}  # of `os`, `ast` and named tuples


def _private(name):
    return name.startswith("_") and not name.startswith("__")


def _own_names():
    """Return every private name that our code itself gives to something."""
    found = set()
    for path in _files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return found


def _files():
    return [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def _foreign_uses(text, own):
    """Yield private names that code reads from elsewhere: attributes, and names and modules it imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and _private(node.attr) and node.attr not in own:
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] not in LAYERS:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            yield from (name for name in names if _private(name))
        elif isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split(".") if _private(part))


def test_every_private_name_of_another_package_is_known():
    own = _own_names()
    used = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in _files()
        for name in _foreign_uses(path.read_text(encoding="utf-8"), own)
        if name not in _DOCUMENTED
    }
    assert used == set(CHECKED)


@pytest.mark.parametrize(("package", "release"), sorted(set(CHECKED.values())))
def test_the_installed_release_is_the_one_that_was_checked(package, release):
    installed = version(package)
    assert installed.startswith(f"{release}."), (
        f"{package} {installed} is installed, and {release} was checked: see whether the private names in"
        " CHECKED still mean the same, then name the new release there"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch._fused_adamw_()",
        "import torch._dynamo",
        "from torch._inductor import config",
        "from torch.library import _register",
        "def f(fs):\n    return fs._strip_protocol('s3://x')",
    ],
)
def test_a_new_private_name_is_found(code):
    assert list(_foreign_uses(code, own=set()))
