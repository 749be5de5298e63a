"""Which files know a name: as an identifier or in a string, not in a comment, docstring or module path."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path


def files_naming(name: str, root: Path, folders: tuple[str, ...]) -> list[str]:
    """Return the Python files below the folders that name it, as paths below the root."""
    paths = (path for folder in folders for path in sorted((root / folder).rglob("*.py")))
    return [str(path.relative_to(root)) for path in paths if _names(name, path.read_text(encoding="utf-8"))]


def _names(name: str, source: str) -> bool:
    word = re.compile(rf"\b{re.escape(name)}\b")
    return any(word.search(text) for text in _texts(ast.parse(source)))


def _texts(tree: ast.AST) -> Iterator[str]:
    """Yield every identifier and every string that is not a statement of its own."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.value
        elif not isinstance(node, ast.ImportFrom):  # its `module` is a place, what it imports a name
            yield from (
                value
                for field in ("id", "attr", "arg", "name", "asname")
                if isinstance(value := getattr(node, field, None), str)
            )
