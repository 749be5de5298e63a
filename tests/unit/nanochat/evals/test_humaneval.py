from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanochat.data.chat.answers import Problem
from nanochat.data.chat.tasks import load_task
from nanochat.evals.humaneval import head_imports, passes, program

PROBLEM = Problem(
    prompt='import math\nfrom typing import List\n\ndef total(x: List[int]) -> int:\n    """Add up."""\n',
    entry_point="total",
    test="METADATA = {'author': 'x'}\n\ndef check(candidate):\n"
    "    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    solution="    return sum(x)\n",
)
GOOD = "def total(x: List[int]) -> int:\n    return sum(x)"
WRONG = GOOD.replace("sum", "max")
# Replies, and the verdict on each that upstream's own code, of October 2025 and of July 2026, gave for this
# problem. None does more than define names, so that they can be run here.
VERDICTS = json.loads(Path(__file__).with_name("humaneval_verdicts.json").read_text(encoding="utf-8"))


def _ends_well(text):
    try:
        exec(text, {})  # as the sandbox does, without the cost of one
    except Exception:
        return False
    return True


@pytest.mark.parametrize("case", VERDICTS, ids=lambda case: case["why"])
def test_the_verdict_is_upstreams(case):
    assert _ends_well(program(PROBLEM, case["reply"])) is case["passes"]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (f"Sure!\n```python\n{GOOD}\n```\nDone.", True),
        (f"```python\n{GOOD}```", False),
        (WRONG, False),
        (f"{GOOD}\nif __name__ == '__main__':\n    raise ValueError", True),
        ("if __name__ == '__main__':\n    def total(x):\n        return sum(x)", False),
        (f"assert set(globals()) <= {{'__builtins__', 'math', 'List'}}\n{GOOD}", True),
        ("import sys\nsys.exit(0)", False),
        ("def total(x):\n    raise SystemExit", False),
        ("import os\nos._exit(0)", False),
    ],
)
def test_the_verdict_of_a_program_that_is_run_is_upstreams(reply, verdict):
    assert passes(PROBLEM, reply) is verdict


def test_the_program_is_imports_code_tests_and_their_call():
    found = program(PROBLEM, f"\n{GOOD}\n")
    assert found == f"import math\nfrom typing import List\n\n{GOOD}\n\n{PROBLEM.test}\ncheck(total)"


def test_only_the_imports_at_the_head_are_taken():
    prompt = "import math\n\n# note\nfrom typing import List\ndef f():\n    import os\n"
    assert head_imports(prompt) == "import math\nfrom typing import List"


def test_real_solutions_pass_their_tests(shared_data):
    task = load_task(shared_data, "humaneval", "test")
    for i in (0, 32, 38, 99):
        assert passes(task.problem(i), task.conversation(i)[-1]["content"]), i
        assert not passes(task.problem(i), "def nothing(): pass")
