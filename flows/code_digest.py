"""Which code a stage reaches, and a digest of it: so that a code change is a decision, not an accident.

The digest covers the module of a stage's run function and every module of ours it imports, directly or
not, without comments and docstrings. `flows/stages.lock` keeps the digests that were reviewed; a test
fails when they differ, until the author raises the stage's version or confirms "same result" with
`python -m flows.code_digest --confirm`. Digests are not part of a key.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from flows.stage import Stage
from flows.stages import STAGES

LOCK = Path(__file__).with_name("stages.lock")
_ROOT = Path(__file__).parents[1]
_OURS = ("nanochat", "kernels")


@cache  # plans ask for each of thousands of nodes
def code_digest(stage: Stage) -> str:
    """Return the sha256 of all code of ours that the stage's run function reaches."""
    module = stage.run.partition(":")[0]
    hasher = hashlib.sha256()
    for name in sorted(_reachable(module)):
        hasher.update(f"{name}\n{_normal_form(name)}\n".encode())
    return hasher.hexdigest()


def current() -> dict[str, dict[str, object]]:
    """Return version and code digest of every stage, as the lock file holds them."""
    return {name: {"version": s.version, "code": code_digest(s)} for name, s in STAGES.items()}


def _reachable(module: str) -> set[str]:
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in found and _path(name) is not None:
            found.add(name)
            todo.extend(_imports(name))
    return found


def _path(module: str) -> Path | None:
    base = _ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


@cache
def _tree(module: str) -> ast.Module:
    path = _path(module)
    assert path is not None
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imports(module: str) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.split(".")[0] in _OURS)


@cache
def _normal_form(module: str) -> str:
    tree = _tree(module)
    for node in _with_docstring(tree):
        node.body = node.body[1:]
    return ast.dump(tree)


def _with_docstring(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            yield node


if __name__ == "__main__":
    if sys.argv[1:] != ["--confirm"]:
        sys.exit(
            "usage: python -m flows.code_digest --confirm   (says: these code changes give the same result)"
        )
    LOCK.write_text(json.dumps(current(), indent=2) + "\n", encoding="utf-8")
