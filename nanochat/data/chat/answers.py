"""What an answer is checked against, and whether a written number is the right one.

Functions are judged where they can be run: `nanochat.evals.humaneval`. A change of what is right raises the
rule's version in `nanochat.evals.protocol`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What an answer is checked against; fields that a kind of task does not use are empty."""

    letters: tuple[str, ...] = ()  # choice: the possible answers
    answer: str = ""  # choice: the right letter; math: the number, without commas
    prompt: str = ""  # code: head of the function, with its imports
    entry_point: str = ""  # code: name of the function
    test: str = ""  # code: defines check(candidate)
    solution: str = ""  # code: body of the function
    group: str = ""  # part of the task that it belongs to, such as a subject


_NUMBER = re.compile(r"#### (-?[0-9.,]+)")


def is_right_number(problem: Problem, reply: str) -> bool:
    """Compare the number that a reply gives with the answer, as text without commas."""
    return final_number(reply) == problem.answer


def final_number(text: str) -> str | None:
    """Return the number after the first `#### ` without commas, or None; upstream's rule.

    A full stop after it is part of the text that is taken, so that `#### 12.` is not `12`.
    """
    found = _NUMBER.search(text)
    return found[1].replace(",", "") if found else None
