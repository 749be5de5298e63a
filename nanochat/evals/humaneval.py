"""HumanEval: does a generated function pass its tests?"""

from __future__ import annotations

import re

from nanochat.data.chat.answers import Problem
from nanochat.evals.sandbox import run_python

_FENCE = re.compile(r"```(?:python)?\s*\n(.*?)\n?```", re.DOTALL)


def passes(problem: Problem, reply: str, *, timeout_s: float = 5.0) -> bool:
    """Run the code of a reply against the problem's tests."""
    program = "\n\n".join(
        [
            head_imports(problem.prompt),
            extract_code(reply),
            problem.test,
            f"check({problem.entry_point})",
        ]
    )
    return run_python(program, timeout_s=timeout_s).status == "success"


def extract_code(reply: str) -> str:
    """Return the first fenced block of a reply, or all of it."""
    block = _FENCE.search(reply)
    return block[1] if block else reply


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
