from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanochat.data.chat.answers import Problem
from nanochat.data.chat.tasks import load_task
from nanochat.evals.humaneval import head_imports, helpers, passing, program

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


@pytest.fixture(scope="module")
def verdicts():
    return next(passing([[(PROBLEM, case["reply"]) for case in VERDICTS]], workers=2))


@pytest.mark.parametrize("i", range(len(VERDICTS)), ids=lambda i: VERDICTS[i]["why"])
def test_the_verdict_is_upstreams(i, verdicts):
    assert verdicts[i] is VERDICTS[i]["passes"]


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
        (f"{GOOD}\nimport sys\nfor line in sys.stdin:\n    print(total(line))", False),
        (f"{GOOD}\ntry:\n    input()\nexcept OSError:\n    pass", True),
    ],
)
def test_the_verdict_of_a_program_that_is_run_is_upstreams(reply, verdict):
    assert next(passing([[(PROBLEM, reply)]])) == [verdict]


def test_the_program_is_imports_and_code():
    assert program(PROBLEM, f"\n{GOOD}\n") == f"import math\nfrom typing import List\n\n{GOOD}\n\n"


def test_tests_may_use_what_the_prompt_defines_besides_the_function():
    head, function = PROBLEM.prompt.split("\n\n")
    prompt = f'{head}\n\ndef double(x):\n    """\\d"""\n    return 2 * x\n\n{function}'
    found = helpers(Problem(prompt=prompt, entry_point="total"))
    names = {}
    exec(found, names)
    assert names["double"](2) == 4
    assert "math" in names and "total" not in names
    assert helpers(Problem(prompt="import math\ndef f(:", entry_point="f")) == "import math"


def test_only_the_imports_at_the_head_are_taken():
    prompt = "import math\n\n# note\nfrom typing import List\ndef f():\n    import os\n"
    assert head_imports(prompt) == "import math\nfrom typing import List"


def test_real_solutions_pass_their_tests_however_many_are_judged_at_once(shared_data):
    task = load_task(shared_data, "humaneval", "test")
    real = [(task.problem(i), task.conversation(i)[-1]["content"]) for i in range(len(task))]
    assert list(passing([real[:60], real[60:]], workers=64)) == [[True] * 60, [True] * (len(task) - 60)]
    assert next(passing([[(problem, "def nothing(): pass") for problem, _ in real[:4]]])) == [False] * 4
