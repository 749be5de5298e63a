from __future__ import annotations

import random

import pytest

from nanochat.data.chat.answers import Problem, final_number, is_right_number
from nanochat.data.chat.tasks import load_task

# How a right answer may be written, and whether upstream takes it for right.
SPELLINGS = {
    "#### {n}": True,
    "So it is {n}.\n#### {n} apples": True,
    "#### {commas}": True,
    "#### {n}\n#### 0": True,
    "##### {n}%": True,
    "#### {n}.": False,
    "#### ${n}": False,
    "####{n}": False,
    "####  {n}": False,
    "#### {n}.0": False,
    "#### 0\n#### {n}": False,
    "#### **{n}**": False,
    "The answer is {n}": False,
}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 5.\n#### 1,234", "1234"),
        ("#### -3.5", "-3.5"),
        ("#### 7.", "7."),
        ("#### ,.,", "."),
        ("#### 4\n#### 5", "4"),
        ("the answer is 5", None),
        ("####5", None),
        ("####\n5", None),
        ("#### -5 and", "-5"),
        ("#### - 5", None),
        ("#### +5", None),
        ("#### \uff15", None),
    ],
)
def test_the_number_after_the_first_marks_is_the_answer(text, number):
    assert final_number(text) == number


def test_a_reply_without_a_number_is_wrong():
    assert is_right_number(Problem(answer="5"), "#### 5")
    assert not is_right_number(Problem(answer="5"), "5")


@pytest.mark.parametrize(("spelling", "right"), SPELLINGS.items())
def test_spellings_are_judged_as_upstream_judges_them(spelling, right, shared_data):
    task = load_task(shared_data, "gsm8k", "test")
    problems = [task.problem(i) for i in random.Random(1).sample(range(len(task)), 300)]
    for problem in problems:
        reply = spelling.format(n=problem.answer, commas=f"{int(problem.answer):,}")
        assert is_right_number(problem, reply) is right, reply
