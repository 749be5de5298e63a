"""One module's source: its top-level statements that run, the names they bind, and what it imports.

`flows.plan.code_reach` resolves names across modules and finds what is reached.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

# Tuples: `isinstance` is called for every node, and is faster with them than with unions.
DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
LOOP = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
IMPORT = (ast.Import, ast.ImportFrom)
_PATTERN = (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
_LEAF = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop)
_ENDS = (*_LEAF, *DEFINITION, *LOOP, ast.Lambda)  # what has no part in the scope around it


class Target(NamedTuple):
    """What a name means: a name in a module of ours, the module (no name), or a path outside (no module)."""

    module: str
    name: str


class Module:
    """The top-level statements of a module that run, and what its names mean."""

    def __init__(self, name: str, source: str, is_package: bool) -> None:
        self.name = name
        self.statements: list[ast.stmt] = []
        self.defined: dict[str, list[int]] = {}
        self.imported: dict[str, Target] = {}
        self.for_types: dict[str, Target] = {}
        self.stars: list[str] = []
        self.imports: list[str] = []  # modules that may be among ours
        self.acting: list[int] = []  # statements that run for their effects
        self._package = name if is_package else name.rpartition(".")[0]
        body = ast.parse(source).body
        for statement in running(body):
            self._add(statement)
        for statement in body:
            if isinstance(statement, ast.If) and _is_for_types(statement.test):
                self._add_for_types(statement)

    def bound(self, node: ast.AST) -> Iterator[tuple[str, Target | None]]:
        """Yield the names that a node itself binds, with what is imported under them."""
        match node:
            case ast.Import():
                for alias in node.names:
                    path = alias.name if alias.asname else alias.name.partition(".")[0]
                    yield alias.asname or path, Target(path, "")
            case ast.ImportFrom():
                for alias in node.names:
                    yield alias.asname or alias.name, Target(self._source(node), alias.name)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name, None
            case _ if isinstance(node, (*DEFINITION, *_PATTERN)):
                if node.name:
                    yield node.name, None
            case ast.MatchMapping(rest=str(name)):
                yield name, None

    def modules(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        """Return the modules that an import runs; some may not be modules."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        source = self._source(node)
        return [source, *(f"{source}.{alias.name}" for alias in node.names)]

    def _source(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = self._package.split(".")
        return ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])

    def _add(self, statement: ast.stmt) -> None:
        if isinstance(statement, IMPORT):
            self._add_import(statement)
            return
        nodes = list(walk([statement]))
        bound = {name for node in nodes for name, _ in self.bound(node)}
        changed = {name for node in nodes for name in _changed(node)}
        elsewhere = changed - self.defined.keys() - {"__all__"}
        bound |= changed - elsewhere
        if "__all__" in bound:
            return
        place = len(self.statements)
        self.statements.append(statement)
        if _is_main(statement):
            return
        for name in bound:
            self.defined.setdefault(name, []).append(place)
        if not bound or elsewhere or _acts(statement):
            self.acting.append(place)
        self.imports += [name for node in nodes if isinstance(node, IMPORT) for name in self.modules(node)]

    def _add_for_types(self, statement: ast.If) -> None:
        for node in walk(statement.body):
            for name, target in self.bound(node):
                if target and name not in self.defined and name not in self.imported:
                    self.for_types[name] = target

    def _add_import(self, statement: ast.Import | ast.ImportFrom) -> None:
        self.imports += self.modules(statement)
        names = {name: target for name, target in self.bound(statement) if target}
        if "*" in names:
            self.stars.append(names.pop("*").module)
        self.imported |= names


def running(nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield what is code: no docstring, no bare string, nothing for type checkers."""
    for node in nodes:
        if isinstance(node, ast.If) and _is_for_types(node.test):
            yield from running(node.orelse)
        elif not isinstance(node, ast.Pass) and not _is_bare_constant(node):
            yield node


def walk(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield all nodes that run in the scope of the given ones."""
    todo = list(running(nodes))
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, _ENDS):
            continue
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                todo.append(value)
            elif isinstance(value, list):
                todo += running(part for part in value if isinstance(part, ast.AST))


def _is_bare_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_for_types(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _is_main(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"


def _changed(node: ast.AST) -> Iterator[str]:
    """Yield the names whose values a node changes: `TABLE[key] = value`, `TABLE.update(more)`."""
    match node:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            parts = targets
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            parts = [target]
        case ast.Expr(value=ast.Call(func=called)):
            parts = [called]
        case _:
            return
    for part in parts:
        owner = part
        while isinstance(owner, ast.Attribute | ast.Subscript):
            owner = owner.value
        if owner is not part and isinstance(owner, ast.Name):
            yield owner.id


def _acts(statement: ast.stmt) -> bool:
    """Return whether a block does more than define names."""
    simple = isinstance(statement, (*DEFINITION, ast.Expr))
    return not simple and any(isinstance(node, ast.Expr) for node in walk([statement]))
