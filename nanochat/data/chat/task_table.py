"""The chat tasks, each declared once: files, form of the rows, size, hub and card.

Data only. What a form means is code: `nanochat.data.chat.tasks` reads rows of it, `nanochat.data.toy_world`
may write some. `docs/adding-a-task.md` shows how a task is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nanochat.config import public_data

Form = Literal[
    "labelled_choices",  # question, choices with their labels, the right label
    "numbered_choices",  # question, choices, the number of the right one
    "word_problems",  # question, and an answer that ends in `#### number`
    "functions",  # head, body and test of a Python function
    "spelled_words",  # made from a list of words: nothing to score
    "counted_letters",  # made from a list of words
]
WORDS = "tasks/words.txt"
"""Where the list of words is in the data root; the toy world has none."""


@dataclass(frozen=True, kw_only=True)
class TaskSplit:
    """One part of a task's rows."""

    place: str  # file below the data root, without suffix (the list of words has its own)
    rows: int  # when the recipes were published
    hub: str = ""  # config/split of the data set on the hub


@dataclass(frozen=True, kw_only=True)
class TaskDeclaration:
    """What is particular to one task."""

    name: str
    title: str  # on the model card
    form: Form
    splits: Mapping[str, TaskSplit]  # "test" is what is scored
    repo: str = ""  # data set on the hub
    about: str = ""  # what it asks, on the model card
    metric: str = "accuracy"  # as the hub calls it
    row_tokens: int | None = None  # mean length of a rendered row, where a mixture takes the task
    prompt_tokens: int = 0  # mean length of a question that is scored; 0: not known
    reply_steps: int = 0  # until the longest of a batch of replies is written, where replies are written
    card_place: int | None = None  # among the rows of the published card: these are the tasks of ChatCORE
    upstream_result: str = ""  # field of upstream's meta file for the accuracy
    toy: tuple[str, ...] = ()  # what it asks about in the toy world; empty: it is not there

    @property
    def from_words(self) -> bool:
        """Whether rows are made from the list of words, and their numbers are seeds."""
        return self.form in ("spelled_words", "counted_letters")

    @property
    def has_answers(self) -> bool:
        """Whether an answer can be right or wrong."""
        return self.form != "spelled_words"


# Rows of the spelling tasks: as many as upstream's midtraining and evaluation take. Their tokens were
# measured with upstream's tokenizer on English words of 9.2 letters; the others follow from their bytes.
# What is scored is counted by `uv run python tests/benchmarks/count_evaluation.py --data FOLDER`.
TASKS = {
    task.name: task
    for task in (
        TaskDeclaration(
            name="arc_easy",
            title="ARC-Easy",
            about="science questions for schools, the easier ones",
            form="labelled_choices",
            repo=public_data.ARC,
            splits={
                "train": TaskSplit(place="tasks/arc/ARC-Easy/train", hub="ARC-Easy/train", rows=2_251),
                "test": TaskSplit(place="tasks/arc/ARC-Easy/test", hub="ARC-Easy/test", rows=2_376),
            },
            row_tokens=90,
            upstream_result="arc_easy_acc",
            prompt_tokens=75,
            card_place=3,
            toy=("people",),
        ),
        TaskDeclaration(
            name="arc_challenge",
            title="ARC-Challenge",
            about="science questions for schools, the harder ones",
            form="labelled_choices",
            repo=public_data.ARC,
            splits={
                "train": TaskSplit(
                    place="tasks/arc/ARC-Challenge/train", hub="ARC-Challenge/train", rows=1_119
                ),
                "test": TaskSplit(place="tasks/arc/ARC-Challenge/test", hub="ARC-Challenge/test", rows=1_172),
            },
            row_tokens=100,
            prompt_tokens=85,
            card_place=4,
            toy=("numbers",),
        ),
        TaskDeclaration(
            name="mmlu",
            title="MMLU",
            about="questions of 57 subjects, from law to anatomy",
            form="numbered_choices",
            repo=public_data.MMLU,
            splits={
                "train": TaskSplit(
                    place="tasks/mmlu/auxiliary_train", hub="all/auxiliary_train", rows=99_842
                ),
                "dev": TaskSplit(place="tasks/mmlu/dev", hub="all/dev", rows=285),
                "test": TaskSplit(place="tasks/mmlu/test", hub="all/test", rows=14_042),
            },
            row_tokens=210,
            upstream_result="mmlu_acc",
            prompt_tokens=129,
            card_place=0,
            toy=("objects", "surroundings"),
        ),
        TaskDeclaration(
            name="gsm8k",
            title="GSM8K",
            about="grade school word problems, answered by a number",
            form="word_problems",
            repo=public_data.GSM8K,
            splits={
                "train": TaskSplit(place="tasks/gsm8k/train", hub="main/train", rows=7_473),
                "test": TaskSplit(place="tasks/gsm8k/test", hub="main/test", rows=1_319),
            },
            row_tokens=190,
            prompt_tokens=65,
            reply_steps=215,
            card_place=1,
            toy=("sums",),
        ),
        TaskDeclaration(
            name="humaneval",
            title="HumanEval",
            about="Python functions that must pass their tests",
            form="functions",
            repo=public_data.HUMANEVAL,
            metric="pass@1",
            splits={
                "test": TaskSplit(place="tasks/humaneval/HumanEval", hub="openai_humaneval/test", rows=164)
            },
            prompt_tokens=123,
            reply_steps=258,
            card_place=2,
            toy=("functions",),
        ),
        TaskDeclaration(
            name="spelling",
            title="Spelling",
            form="spelled_words",
            splits={
                "train": TaskSplit(place=WORDS, rows=200_000),
                "test": TaskSplit(place=WORDS, rows=256),
            },
            row_tokens=45,
        ),
        TaskDeclaration(
            name="spelling_bee",
            title="SpellingBee",
            about="how often a letter occurs in a word",
            form="counted_letters",
            splits={
                "train": TaskSplit(place=WORDS, rows=80_000),
                "test": TaskSplit(place=WORDS, rows=256),
            },
            row_tokens=180,
        ),
    )
}
