"""Who imports whom below a folder, read from the import statements themselves; nothing is imported or run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

Graph = Mapping[str, set[str]]  # module -> all that it imports: modules of ours by file, others as written


def import_graph(root: Path, layers: tuple[str, ...]) -> dict[str, set[str]]:
    """Return what each module below the layers imports; `from package import module` counts as the module."""
    files = {_name(path, root): path for layer in layers for path in sorted((root / layer).rglob("*.py"))}
    return {name: set(_imports(path, files)) - {name} for name, path in files.items()}


def importers(graph: Graph, package: str) -> set[str]:
    """Return the modules that import a package or something below it."""
    return {module for module, imported in graph.items() if any(_below(name, package) for name in imported)}


def circles(graph: Graph) -> list[list[str]]:
    """Return each set of files that import each other, directly or by way of others."""
    reach: dict[str, set[str]] = {}
    for module in graph:
        seen: set[str] = set()
        todo = [module]
        while todo:
            fresh = {name for name in graph.get(todo.pop(), ()) if name in graph} - seen
            seen |= fresh
            todo.extend(fresh)
        reach[module] = seen
    found = {frozenset(n for n in reach[m] if m in reach[n]) for m in graph if m in reach[m]}
    return sorted(sorted(circle) for circle in found)


def forbidden(graph: Graph, allowed: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return `importer -> imported` for each import between packages that the table does not allow.

    A module belongs to the longest package of the table that it is in; modules of no package are named too.
    """
    wrong = []
    for module, imported in graph.items():
        own = _package(module, allowed)
        if own is None:
            wrong.append(f"{module} is in no package of the table")
            continue
        for name in imported & graph.keys():
            other = _package(name, allowed)
            if other not in (None, own) and not any(_below(name, ok) for ok in allowed[own]):
                wrong.append(f"{module} -> {name}")
    return sorted(wrong)


def _package(module: str, table: Mapping[str, tuple[str, ...]]) -> str | None:
    return max((p for p in table if _below(module, p)), key=len, default=None)


def _below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in files else node.module
