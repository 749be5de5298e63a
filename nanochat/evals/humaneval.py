"""HumanEval: does a generated function pass its tests?

The program is made from a reply by upstream's rule, and so are the verdicts the same (`evals/protocol.py` has
the rule's version, and what differs on purpose); how it is run and judged is the business of `evals/jail`.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence

from nanochat.data.chat.answers import Problem
from nanochat.evals.jail.judging import Attempt, judge_groups
from nanochat.evals.jail.levels import strongest

_FENCE = re.compile(r"```(?:python)?\s*\n(.*?)\n```", re.DOTALL)


def passing(
    answers: Iterable[Sequence[tuple[Problem, str]]], *, workers: int = 1, allow_unsafe_code: bool = False
) -> Iterator[list[bool]]:
    """Run replies against their problems' tests while others are written; yield which of a group pass."""
    level = strongest(allow_unsafe_code=allow_unsafe_code)
    groups = ([attempt(problem, reply) for problem, reply in group] for group in answers)
    for verdicts in judge_groups(groups, level, workers=workers):
        yield [verdict.status == "success" for verdict in verdicts]


def attempt(problem: Problem, reply: str) -> Attempt:
    """Return what is judged for a reply: its program, and what belongs to the problem."""
    return Attempt(
        program=program(problem, reply),
        test=problem.test,
        entry_point=problem.entry_point,
        helpers=helpers(problem),
    )


def program(problem: Problem, reply: str) -> str:
    """Return what is run for a reply before its tests: imports of the prompt, and the reply's code."""
    # The empty line is upstream's: with it code may end in a backslash.
    return f"{head_imports(problem.prompt)}\n\n{extract_code(reply)}\n\n"


def helpers(problem: Problem) -> str:
    """Return the prompt without the function that is asked for: tests may use what else it defines."""
    try:
        with warnings.catch_warnings(action="ignore"):  # backslashes in docstrings
            tree = ast.parse(f"{problem.prompt}\n    pass\n")
    except SyntaxError:
        return head_imports(problem.prompt)
    tree.body = [node for node in tree.body if getattr(node, "name", None) != problem.entry_point]
    return ast.unparse(tree)


def extract_code(reply: str) -> str:
    """Return the first fenced block of a reply, or all of it, stripped.

    A fence opens with nothing but `python` behind it and closes only at the beginning of a line.
    """
    block = _FENCE.search(reply)
    return (block[1] if block else reply).strip()


def head_imports(prompt: str) -> str:
    """Return the import lines at the head of a prompt, which replies often leave out."""
    lines: list[str] = []
    for line in prompt.split("\n"):
        stripped = line.strip()
        if stripped.startswith(("import ", "from ")):
            lines.append(stripped)
        elif stripped and not stripped.startswith("#"):
            break
    return "\n".join(lines)
