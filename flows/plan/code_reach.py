"""The top-level statements that a function reaches, and their text, whichever module they are in.

A statement that defines a name is reached by its use. One that defines none (a bare call) is reached where
its module is imported; one that calls a function of ours to define a name, or decorates with something of
ours (it may register something), where anything of its module is reached. A module that is used as a value,
or named by a string, is reached as a whole, a template that a string names as its text. Imports for type
checkers are not followed; what other strings name is not seen.

Reads source with `ast` and imports nothing of what it reads. `flows.plan.code_digest` says what a digest is
for.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flows.plan.code_modules import DEFINITION, IMPORT, LOOP, Module, Target, running, walk

_OURS = ("nanochat", "kernels")
_NAMES_MODULE = re.compile(rf"({'|'.join(_OURS)})(\.\w+)+(:\w+)?")
_NAMES_TEMPLATE = re.compile(r"[\w.-]+\.(jinja|j2)")
_BY_STRING = "a module"  # the name in a target for a module that a string names; not an identifier
_NO_CODE = frozenset({"ctx", "kind", "type_comment"})


class Statement(NamedTuple):
    """A top-level statement, by its place in a module."""

    module: str
    place: int


class Code:
    """The modules of ours below a folder, each read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, Module | None] = {}
        self._forms: dict[Statement, _Form] = {}
        self._registering: dict[str, list[Statement]] = {}

    def digest(self, run: str) -> str:
        """Return the sha256 of all statements that the function `run` ("module:function") reaches."""
        lines = {self._line(statement) for statement in self.reached(run)}
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()

    def reached(self, run: str) -> set[Statement]:
        """Return all statements that the function `run` ("module:function") reaches."""
        module, _, function = run.partition(":")
        found: set[Statement] = set()
        imported: set[str] = set()
        todo = list(self.meant(Target(module, function)))
        while todo:
            statement = todo.pop()
            if statement in found:
                continue
            found.add(statement)
            form = self._form(statement)
            for target in form.used:
                todo += self.meant(target)
            todo += self._calling_ours(statement.module)
            todo += self._acting([statement.module, *form.imports], imported)
        return found

    def module(self, name: str) -> Module | None:
        """Return a module of ours, or None if there is none of that name."""
        if name not in self._modules:
            self._modules[name] = self._read(name) if name.split(".")[0] in _OURS else None
        return self._modules[name]

    def templates(self, name: str) -> list[str]:
        """Return the texts of the templates of that name, whichever folder they are in."""
        found = (path for layer in _OURS for path in (self._root / layer).rglob(name))
        return sorted(path.read_text(encoding="utf-8") for path in found)

    def resolve(self, imported: Target) -> Target:
        """Return what an import means, through all modules that re-export the name."""
        if self.module(imported.module) is None:
            return Target("", ".".join(filter(None, imported)))
        return self.member(imported) if imported.name else imported

    def member(self, target: Target) -> Target:
        """Return what a name in a module of ours means: defined or imported there, or a module below it."""
        known = self.module(target.module)
        if known is None or target.name in known.defined:
            return target
        passed_on = known.imported.get(target.name, target)
        if passed_on != target:
            return self.resolve(passed_on)
        below = f"{target.module}.{target.name}"
        if self.module(below):
            return Target(below, "")
        candidates = (self.member(Target(star, target.name)) for star in known.stars)
        return next((c for c in candidates if not c.name or self._defining(c)), target)

    def meaning(self, module: Module, name: str) -> Target | None:
        """Return what a global name of a module means, None for one that is built in or unknown."""
        if name in module.for_types:
            path = module.for_types[name]
            if self.module(path.module) is None:
                return self.resolve(path)
            below = self.module(".".join(path))
            return Target("", "" if below else path.name)  # not followed: only its text counts
        target = Target(module.name, name)
        found = self.member(target)
        return found if found != target or self._defining(found) else None

    def meant(self, target: Target) -> Iterator[Statement]:
        """Yield what defines a name: the statements that bind it, all of the module if none does.

        A module that is a value may be asked for the names that it re-exports as well.
        """
        module = self.module(target.module)
        found = self._defining(target)
        yield from found
        if module is None or found:
            return
        yield from (Statement(module.name, place) for place in range(len(module.statements)))
        if target.name != _BY_STRING:
            for passed_on in module.imported.values():
                yield from self._defining(self.resolve(passed_on))

    def _defining(self, target: Target) -> list[Statement]:
        module = self.module(target.module)
        return (
            [Statement(module.name, place) for place in module.defined.get(target.name, ())] if module else []
        )

    def _read(self, name: str) -> Module | None:
        base = self._root.joinpath(*name.split("."))
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path.exists():
                return Module(name, path.read_text(encoding="utf-8"), path.stem == "__init__")
        return Module(name, "", True) if base.is_dir() else None

    def _acting(self, names: list[str], imported: set[str]) -> Iterator[Statement]:
        """Yield the statements that act when modules and those they import are imported, each module once."""
        while names:
            name = names.pop()
            if name not in imported and (module := self.module(name)):
                names += [name.rpartition(".")[0], *module.imports]
                yield from (Statement(name, place) for place in module.acting)
            imported.add(name)

    def _calling_ours(self, name: str) -> list[Statement]:
        """Return the statements of a module that call a function of ours as it is imported."""
        if name not in self._registering:
            module = self.module(name)
            assert module
            reader = _Reader(self, module)
            self._registering[name] = [
                Statement(name, place)
                for place, statement in enumerate(module.statements)
                if any(self._is_function(reader.meaning(called)) for called in _called(statement))
                or any(self._is_ours(reader, decorator) for decorator in _decorators(statement))
            ]
        return self._registering[name]

    def _is_function(self, target: Target | None) -> bool:
        defining = self._defining(target) if target else []
        return any(not isinstance(self._node(statement), ast.ClassDef) for statement in defining)

    def _is_ours(self, reader: _Reader, decorator: ast.expr) -> bool:
        """Say whether a decorator is of ours: a function, a class, or a method of something of ours."""
        while (target := reader.meaning(decorator)) is None and isinstance(decorator, ast.Attribute):
            decorator = decorator.value
        return target is not None and bool(self._defining(target))

    def _node(self, statement: Statement) -> ast.stmt:
        module = self.module(statement.module)
        assert module
        return module.statements[statement.place]

    def _form(self, statement: Statement) -> _Form:
        if statement not in self._forms:
            module = self.module(statement.module)
            assert module
            self._forms[statement] = _Reader(self, module).form(self._node(statement))
        return self._forms[statement]

    def _line(self, statement: Statement) -> str:
        """Return a statement's digest and those of what it uses: two things of one name stay distinct."""
        form = self._form(statement)
        used = [s for target in form.used for s in self._defining(target)]
        return " ".join([form.digest, *(self._form(s).digest for s in used)])


class _Form(NamedTuple):
    """The content of a statement, whichever module it is in."""

    digest: str
    used: tuple[Target, ...]  # in order
    imports: tuple[str, ...]  # modules that may be among ours


class _Scope(NamedTuple):
    """What the names that a function or class binds mean; None: a variable."""

    names: dict[str, Target | None]
    is_class: bool = False


class _Reader:
    """Reads one statement: its text with names as they were defined, and what it uses."""

    def __init__(self, code: Code, module: Module) -> None:
        self._code, self._module = code, module
        self._scopes: list[_Scope] = []
        self._text: list[str] = []
        self._used: list[Target] = []
        self._imports: list[str] = []

    def form(self, statement: ast.stmt) -> _Form:
        """Return the form of a top-level statement."""
        self._read(statement)
        digest = hashlib.sha256("\n".join(self._text).encode()).hexdigest()
        return _Form(digest, tuple(self._used), tuple(self._imports))

    def meaning(self, node: ast.AST) -> Target | None:
        """Return what a dotted name means; None for variables and for what is not a name."""
        if isinstance(node, ast.Name):
            binds = not self._scopes and not isinstance(node.ctx, ast.Load)
            return None if binds else self._lookup(node.id)
        if not isinstance(node, ast.Attribute) or not (owner := self.meaning(node.value)):
            return None
        if not owner.module:
            return Target("", f"{owner.name}.{node.attr}".lstrip("."))
        return None if owner.name else self._code.member(Target(owner.module, node.attr))

    def _lookup(self, name: str) -> Target | None:
        for depth, scope in enumerate(reversed(self._scopes)):
            if name in scope.names and not (scope.is_class and depth):
                return scope.names[name]
        return self._code.meaning(self._module, name)

    def _read(self, value: Any) -> None:
        if isinstance(value, list):
            self._read_list(value)
        elif isinstance(value, (ast.Name, ast.Attribute)) and (target := self.meaning(value)):
            self._refer(target)
        elif isinstance(value, ast.Constant):
            self._read_constant(value.value)
        elif isinstance(value, (*DEFINITION, ast.Lambda)):
            self._read_definition(value)
        elif isinstance(value, LOOP):
            targets = walk(generator.target for generator in value.generators)
            self._scopes.append(self._scope(targets))
            self._read_fields(value)
            self._scopes.pop()
        elif isinstance(value, ast.AST):
            self._read_fields(value)
        else:
            self._text.append(repr(value))

    def _read_list(self, values: list[Any]) -> None:
        self._text.append("[")
        for value in running(values):
            if isinstance(value, IMPORT):
                self._import(value)
            else:
                self._read(value)
        self._text.append("]")

    def _read_fields(self, node: ast.AST, leave_out: str = "") -> None:
        self._text.append(type(node).__name__)
        for name, value in ast.iter_fields(node):
            if value is not None and value != [] and name not in _NO_CODE and name != leave_out:
                self._text.append(name)
                self._read(value)

    def _read_definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    ) -> None:
        self._read_fields(node, leave_out="body")
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        parameters = [] if isinstance(node, ast.ClassDef) else _parameters(node.args)
        scope = self._scope(walk(body), parameters)
        self._scopes.append(scope._replace(is_class=isinstance(node, ast.ClassDef)))
        self._read(body)
        self._scopes.pop()

    def _read_constant(self, value: object) -> None:
        if isinstance(value, str) and _NAMES_TEMPLATE.fullmatch(value):
            self._text += self._code.templates(value)
        if isinstance(value, str) and _NAMES_MODULE.fullmatch(value):
            module, _, name = value.partition(":")
            if self._code.module(module):
                self._refer(Target(module, name or _BY_STRING))
                return
        self._text.append(repr(value))

    def _refer(self, target: Target) -> None:
        self._text.append(target.name or _BY_STRING)
        if target.module:
            self._used.append(target)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Read an import; what stands under a name that may mean something else as well is used here."""
        self._imports += self._module.modules(node)
        for name, target in self._module.bound(node):
            if target and (not self._scopes or self._scopes[-1].names.get(name) is None):
                self._refer(self._code.resolve(target))

    def _scope(self, nodes: Iterable[ast.AST], parameters: Iterable[str] = ()) -> _Scope:
        names: dict[str, Target | None] = dict.fromkeys(parameters)
        elsewhere: set[str] = set()
        for node in nodes:
            if isinstance(node, ast.Global | ast.Nonlocal):
                elsewhere.update(node.names)
            for name, imported in self._module.bound(node):
                target = self._code.resolve(imported) if imported else None
                names[name] = target if names.get(name, target) == target else None
        return _Scope({name: target for name, target in names.items() if name not in elsewhere})


def _parameters(arguments: ast.arguments) -> list[str]:
    return [node.arg for node in ast.walk(arguments) if isinstance(node, ast.arg)]


def _called(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield what a statement calls as its module is imported."""
    yield from (node.func for node in walk([statement]) if isinstance(node, ast.Call))


def _decorators(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield what is called with the functions and classes that a statement defines."""
    for node in walk([statement]):
        if isinstance(node, DEFINITION):
            for decorator in node.decorator_list:
                yield decorator.func if isinstance(decorator, ast.Call) else decorator
