"""HumanEval: does a generated function pass its tests?

The program is made from a reply by upstream's rule, and so are the verdicts the same (`evals/protocol.py` has
the rule's version, and what differs on purpose); how a program is run and judged is the sandbox's business.
"""

from __future__ import annotations

import re

from nanochat.data.chat.answers import Problem
from nanochat.evals.sandbox import run_python

_FENCE = re.compile(r"```(?:python)?\s*\n(.*?)\n```", re.DOTALL)


def passes(problem: Problem, reply: str, *, timeout_s: float = 5.0) -> bool:
    """Run the code of a reply against the problem's tests."""
    return run_python(program(problem, reply), timeout_s=timeout_s).status == "success"


def program(problem: Problem, reply: str) -> str:
    """Return what is run for a reply: imports of the prompt, the reply's code, the tests and their call."""
    call = f"{problem.test}\ncheck({problem.entry_point})"
    return "\n\n".join([head_imports(problem.prompt), extract_code(reply), call])


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
