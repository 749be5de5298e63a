"""A code change is a decision: `flows/stages.lock` holds what was reviewed, wherever the code is."""

from __future__ import annotations

import ast
import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest

from flows.plan import code_digest
from flows.plan.code_reach import Code
from flows.stages import IMPORT, STAGES

ROOT = Path(__file__).parents[4]
ALL = {**STAGES, IMPORT.name: IMPORT}
TRAINING = {"pretrain", "midtrain", "sft"}
EVALUATION = {"evaluate_base", "evaluate_mid", "evaluate_sft"}


@pytest.mark.parametrize("name", ALL)
def test_code_of_each_stage_is_what_was_reviewed(name):
    locked = json.loads(code_digest.LOCK.read_text(encoding="utf-8"))
    assert locked.get(name) == code_digest.current()[name], (
        f"the code that stage {name!r} reaches has changed: raise its version in flows/stages.py if"
        " results change, then confirm with `just confirm-code`"
    )


FILES = {
    "nanochat/__init__.py": '"""A package."""\n',
    "nanochat/work.py": """
        from pathlib import Path

        from nanochat import tools
        from nanochat.config import Config
        from nanochat.parts import LIMIT, half as split_in_two

        def run(config: Config, out: Path) -> int:
            import nanochat.late
            limit = split_in_two(LIMIT)
            return tools.count(out, limit) + nanochat.late.ADDED

        def unused():
            return tools.unused()
        """,
    "nanochat/tools.py": """
        import os.path as paths

        STEP = 1

        def count(out, limit):
            return len(paths.join(out, str(limit))) + STEP

        def unused():
            return 2
        """,
    "nanochat/parts.py": """
        TABLE = {}
        TABLE["limit"] = 10
        LIMIT = TABLE["limit"]
        "What is too much."

        def half(value):
            \"\"\"Halve.\"\"\"
            return value // 2

        def twice(value):
            return value * 2
        """,
    "nanochat/late.py": "ADDED = 5\n",
    "nanochat/config/__init__.py": """
        from nanochat.config.fields import Config, Other

        __all__ = ["Config", "Other"]
        """,
    "nanochat/config/fields.py": """
        class Config:
            size: int = 3
            \"\"\"How large.\"\"\"

        class Other:
            size: int = 4
        """,
}


class Project:
    """A small project of ours, and the digest of its one stage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.splitlines()
        margin = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
        path.write_text("".join(f"{line[margin:]}\n" for line in lines))

    def change(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        assert old in path.read_text(), (name, old)
        path.write_text(path.read_text().replace(old, new))

    def move(self, name: str, new: str) -> None:
        (self.root / new).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).rename(self.root / new)

    def digest(self, run: str = "nanochat.work:run") -> str:
        return Code(self.root).digest(run)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


IN_REACH = {
    "an expression": ("nanochat/work.py", "count(out, limit) +", "count(out, limit) -"),
    "a constant": ("nanochat/tools.py", "STEP = 1", "STEP = 2"),
    "a function that has another name here": ("nanochat/parts.py", "value // 2", "value // 3"),
    "a value set in a table": ("nanochat/parts.py", '"limit"] = 10', '"limit"] = 11'),
    "the default of a field": ("nanochat/config/fields.py", "size: int = 3", "size: int = 5"),
    "what a function imports": ("nanochat/late.py", "5", "6"),
    "the module outside that is called": ("nanochat/tools.py", "import os.path", "import posixpath"),
    "which function of ours a name means": ("nanochat/work.py", "half as", "twice as"),
}


@pytest.mark.parametrize("change", IN_REACH.values(), ids=IN_REACH)
def test_a_change_in_reach_changes_the_digest(project, change):
    before = project.digest()
    project.change(*change)
    assert project.digest() != before


NO_CODE = {
    "a docstring": ("nanochat/parts.py", "Halve.", "Said anew."),
    "that there is a docstring": ("nanochat/parts.py", '"""Halve."""', ""),
    "the help of a field": ("nanochat/config/fields.py", "How large.", "How large it is."),
    "the help of a constant": ("nanochat/parts.py", "What is too much.", "What is far too much."),
    "a comment": ("nanochat/tools.py", "STEP = 1", "STEP = 1  # a remark"),
    "an import that nothing uses": ("nanochat/tools.py", "import os", "import json\nimport os"),
    "how the same is imported": (
        "nanochat/tools.py",
        "import os.path as paths",
        "from os import path as paths",
    ),
    "a function out of reach": ("nanochat/tools.py", "return 2", "return 3"),
    "a class out of reach": ("nanochat/config/fields.py", "size: int = 4", "size: int = 5"),
    "what a package hands on": ("nanochat/config/__init__.py", '"Other"]', "]"),
}


@pytest.mark.parametrize("change", NO_CODE.values(), ids=NO_CODE)
def test_what_is_no_code_in_reach_does_not_count(project, change):
    before = project.digest()
    project.change(*change)
    assert project.digest() == before


def test_order_of_statements_does_not_count(project):
    before = project.digest()
    path = project.root / "nanochat/tools.py"
    tree = ast.parse(path.read_text())
    tree.body.reverse()
    path.write_text(ast.unparse(tree))
    assert project.digest() == before


def test_a_file_may_move_to_another_package(project):
    before = project.digest()
    project.write("nanochat/deep/er/__init__.py", "")
    project.move("nanochat/parts.py", "nanochat/deep/er/parts.py")
    project.change("nanochat/work.py", "nanochat.parts", "nanochat.deep.er.parts")
    assert project.digest() == before


def test_a_module_may_get_another_name(project):
    before = project.digest()
    project.move("nanochat/tools.py", "nanochat/gear.py")
    project.change("nanochat/work.py", "tools", "gear")
    assert project.digest() == before


def test_the_run_function_may_move(project):
    before = project.digest()
    project.move("nanochat/work.py", "nanochat/config/stage.py")
    assert project.digest("nanochat.config.stage:run") == before


def test_a_module_may_be_split(project):
    before = project.digest()
    text = "def half(value):\n    return value // 2\n"
    project.change("nanochat/parts.py", "    return value // 2\n", "    return value\n")
    project.change("nanochat/parts.py", "def half", "def left")
    project.write("nanochat/halves.py", text)
    project.change("nanochat/work.py", "LIMIT, half as split_in_two", "LIMIT")
    project.change(
        "nanochat/work.py", "import tools", "import tools\nfrom .halves import half as split_in_two"
    )
    assert project.digest() == before


def test_a_module_may_become_a_package_that_hands_its_names_on(project):
    before = project.digest()
    project.move("nanochat/parts.py", "nanochat/parts/numbers.py")
    project.write("nanochat/parts/more.py", "from nanochat.tools import unused\nFAR = unused()\n")
    project.write("nanochat/parts/__init__.py", "from .more import FAR\nfrom .numbers import LIMIT, half\n")
    assert project.digest() == before
    project.change("nanochat/parts/numbers.py", "value // 2", "value // 3")
    assert project.digest() != before


def test_imports_for_type_checkers_are_not_followed(project):
    before = project.digest()
    project.change(
        "nanochat/tools.py",
        "STEP = 1",
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from nanochat.parts import twice\nelse:\n    STEP = 1",
    )
    assert project.digest() == before
    project.change("nanochat/tools.py", "(out, limit):", "(out, limit: twice):")
    typed = project.digest()
    project.change("nanochat/parts.py", "value * 2", "value * 3")
    assert project.digest() == typed


def test_variables_of_a_function_are_not_what_modules_define(project):
    project.write("nanochat/alone.py", "def run(half):\n    return [TABLE for TABLE in half]\n")
    before = project.digest("nanochat.alone:run")
    project.write(
        "nanochat/alone.py", "TABLE = half = 1\ndef run(half):\n    return [TABLE for TABLE in half]\n"
    )
    assert project.digest("nanochat.alone:run") == before


def test_two_things_of_one_name_are_not_mistaken(project):
    project.write("nanochat/first.py", "def size():\n    return 1\n")
    project.write("nanochat/second.py", "def size():\n    return 2\n")
    project.write(
        "nanochat/both.py",
        "from nanochat import first, second\ndef run():\n    return first.size() - second.size()\n",
    )
    before = project.digest("nanochat.both:run")
    project.change("nanochat/both.py", "first.size() - second.size()", "second.size() - first.size()")
    assert project.digest("nanochat.both:run") != before


IMPORTED_EITHER_WAY = """
    if os.name == "nt":
        from {} as split
    else:
        from {} as split
"""


@pytest.mark.parametrize("where", ["", "def run():\n"])
@pytest.mark.parametrize(
    "choices",
    [("nanochat.parts import half", "nanochat.parts import twice"), ("math import sin", "math import cos")],
)
def test_which_of_two_imports_is_taken_counts(project, where, choices):
    def digest(first, second):
        text = IMPORTED_EITHER_WAY.format(first, second)
        body = where + text if where else textwrap.dedent(text) + "def run():\n"
        project.write("nanochat/either.py", f"import os\n{body}    return split(1)\n")
        return project.digest("nanochat.either:run")

    assert digest(*choices) != digest(*reversed(choices))


def test_a_bare_call_counts_wherever_its_module_is_imported(project):
    before = project.digest()
    project.change("nanochat/late.py", "ADDED", "print(1)\nADDED")
    printing = project.digest()
    assert printing != before
    project.write("nanochat/other.py", "print(2)\n")
    project.change("nanochat/parts.py", "TABLE = {}", "import nanochat.other\nTABLE = {}")
    assert project.digest() != printing


CHANGED_IN_A_BLOCK = {
    "a loop over its keys": "for key in list(TABLE):\n    TABLE[key] = 4\n",
    "a loop over what has it": "for owner in (parts,):\n    owner.half = None\n",
    "a block that names its context": "with open('x') as file:\n    del TABLE['limit']\n",
    "an error that is caught": "try:\n    TABLE['x'] = 1\nexcept KeyError as error:\n    pass\n",
}


@pytest.mark.parametrize("block", CHANGED_IN_A_BLOCK)
@pytest.mark.parametrize("module", ["nanochat/parts.py", "nanochat/work.py"])
def test_a_block_that_changes_a_table_counts_though_it_binds_a_name(project, block, module):
    imports = "from nanochat import parts\nfrom nanochat.parts import TABLE\n"
    path = project.root / module
    path.write_text(path.read_text() + imports * (module == "nanochat/work.py"))
    before = project.digest()
    path.write_text(path.read_text() + CHANGED_IN_A_BLOCK[block])
    assert project.digest() != before


def test_what_calls_ours_as_its_module_is_imported_counts(project):
    project.write("nanochat/registry.py", "KNOWN = []\ndef register(what):\n    KNOWN.append(what)\n")
    project.change("nanochat/tools.py", "STEP = 1", "from nanochat.registry import register\nSTEP = 1")
    before = project.digest()
    project.change("nanochat/tools.py", "def unused", "@register\ndef unused")
    registered = project.digest()
    assert registered != before
    project.change("nanochat/tools.py", "STEP = 1", "_ENTRY = register(1)\nSTEP = 1")
    assert project.digest() != registered


REGISTERED = {
    "by a method of an object": "@REGISTRY.add\ndef late():\n    pass\n",
    "by a class": "@Registry\ndef late():\n    pass\n",
    "by a function that dispatches on types": "@dispatch.register\ndef late(value: int):\n    pass\n",
    "where a condition holds": "if paths:\n\n    @REGISTRY.add\n    def late():\n        pass\n",
    "in a loop": "for name in 'ab':\n    entry = add(name)\n",
}


@pytest.mark.parametrize("way", REGISTERED)
def test_what_is_registered_as_its_module_is_imported_counts(project, way):
    project.write(
        "nanochat/registry.py",
        "def add(what):\n    return what\ndef dispatch(value):\n    pass\n"
        "class Registry:\n    add = add\nREGISTRY = Registry()\n",
    )
    project.change(
        "nanochat/tools.py",
        "STEP = 1",
        "from nanochat.registry import REGISTRY, Registry, add, dispatch\nSTEP = 1",
    )
    before = project.digest()
    project.change("nanochat/tools.py", "STEP = 1", f"{REGISTERED[way]}STEP = 1")
    assert project.digest() != before


def test_a_module_that_is_a_value_counts_as_a_whole(project):
    project.write(
        "nanochat/ask.py", "from nanochat import config\ndef run(x):\n    return getattr(config, x)\n"
    )
    before = project.digest("nanochat.ask:run")
    project.change("nanochat/config/fields.py", "size: int = 4", "size: int = 5")
    assert project.digest("nanochat.ask:run") != before


def test_names_of_a_star_import_are_followed(project):
    project.write("nanochat/star.py", "from nanochat.parts import *\ndef run():\n    return half(1)\n")
    before = project.digest("nanochat.star:run")
    project.change("nanochat/parts.py", "value * 2", "value * 3")
    assert project.digest("nanochat.star:run") == before
    project.change("nanochat/parts.py", "value // 2", "value // 3")
    assert project.digest("nanochat.star:run") != before


def test_a_module_named_by_a_string_may_move_and_counts(project):
    project.write("nanochat/start.py", 'def run(start):\n    return start("-m", "nanochat.late")\n')
    before = project.digest("nanochat.start:run")
    project.move("nanochat/late.py", "nanochat/config/late.py")
    project.change("nanochat/start.py", "nanochat.late", "nanochat.config.late")
    assert project.digest("nanochat.start:run") == before
    project.change("nanochat/config/late.py", "5", "6")
    assert project.digest("nanochat.start:run") != before


@pytest.fixture
def copy(tmp_path):
    """A copy of the project's own code."""
    for package in ("nanochat", "kernels"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _reviewed() -> dict[str, str]:
    return {name: str(entry["code"]) for name, entry in code_digest.current().items()}


FILES_OF = {
    "schedules.py": TRAINING,
    "humaneval.py": EVALUATION,
    "transfer.py": {"download", "tasks"},
    "model_card.py": {"publish"},
    "restricted_pickle.py": {"import"},
    "relu_squared/op.py": {*TRAINING, *EVALUATION, "publish", "import"},
}


@pytest.mark.parametrize("name", FILES_OF)
def test_a_change_marks_exactly_the_stages_that_reach_it(copy, name):
    (path,) = copy.rglob(name)
    text = path.read_text(encoding="utf-8")
    changed = re.sub(r"(?m)^( +)return ", r"\1return 0 or ", text)
    assert changed != text
    path.write_text(changed, encoding="utf-8")
    code, reviewed = Code(copy), _reviewed()
    assert {name for name, stage in ALL.items() if code.digest(stage.run) != reviewed[name]} == FILES_OF[name]


def test_a_template_is_code_of_the_stage_that_fills_it(copy):
    (path,) = copy.rglob("model_card.md.j2")
    path.write_text(path.read_text(encoding="utf-8") + "One more line.\n", encoding="utf-8")
    code, reviewed = Code(copy), _reviewed()
    assert {name for name, stage in ALL.items() if code.digest(stage.run) != reviewed[name]} == {"publish"}


class _Reworded(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = f"Said anew: {node.value.value}"
        return node


def test_our_code_may_be_reworded_and_its_packages_renamed(copy):
    def renamed(text: str) -> str:
        return re.sub(r"\bnanochat\.(data|evals|model)\b", r"nanochat.other_\1", text)

    for folder in ("data", "evals", "model"):
        (copy / "nanochat" / folder).rename(copy / "nanochat" / f"other_{folder}")
    for path in copy.rglob("*.py"):
        tree = ast.parse(renamed(path.read_text(encoding="utf-8")))
        path.write_text(ast.unparse(_Reworded().visit(tree)), encoding="utf-8")
    code = Code(copy)
    assert {name: code.digest(renamed(stage.run)) for name, stage in ALL.items()} == _reviewed()
