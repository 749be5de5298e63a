from __future__ import annotations

import pytest

from nanochat.data.chat.answers import Problem, final_number, is_right_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 5.\n#### 1,234", "1234"),
        ("#### -3.5", "-3.5"),
        ("#### 7.", "7."),
        ("#### 4\n#### 5", "4"),
        ("the answer is 5", None),
        ("####5", None),
    ],
)
def test_the_number_after_the_first_marks_is_the_answer(text, number):
    assert final_number(text) == number


def test_a_reply_without_a_number_is_wrong():
    assert is_right_number(Problem(answer="5"), "#### 5")
    assert not is_right_number(Problem(answer="5"), "5")
