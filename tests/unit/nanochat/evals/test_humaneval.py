from __future__ import annotations

import pytest

from nanochat.data.chat.answers import Problem
from nanochat.data.chat.tasks import load_task
from nanochat.evals.humaneval import extract_code, head_imports, passes

PROBLEM = Problem(
    prompt='from typing import List\n\ndef total(x: List[int]) -> int:\n    """Add up."""\n',
    entry_point="total",
    test="def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    solution="    return sum(x)\n",
)
GOOD = "def total(x: List[int]) -> int:\n    return sum(x)"


@pytest.mark.parametrize("reply", [GOOD, f"Sure!\n```python\n{GOOD}\n```\nDone.", f"```\n{GOOD}\n```"])
def test_right_function_passes_with_or_without_a_fence(reply):
    assert passes(PROBLEM, reply)


@pytest.mark.parametrize(
    "reply", ["", "I do not know.", GOOD.replace("sum", "max"), GOOD.replace("total", "other")]
)
def test_wrong_function_fails(reply):
    assert not passes(PROBLEM, reply)


def test_first_fenced_block_is_the_code():
    assert extract_code("a\n```python\nx = 1\n```\n```python\ny = 2\n```") == "x = 1"
    assert extract_code("x = 1") == "x = 1"


def test_only_the_imports_at_the_head_are_taken():
    prompt = "import math\n\n# note\nfrom typing import List\ndef f():\n    import os\n"
    assert head_imports(prompt) == "import math\nfrom typing import List"


def test_real_solutions_pass_their_tests(shared_data):
    task = load_task(shared_data, "humaneval", "test")
    for i in (0, 32, 38, 99):
        assert passes(task.problem(i), task.conversation(i)[-1]["content"]), i
        assert not passes(task.problem(i), "def nothing(): pass")
