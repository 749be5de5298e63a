"""Chat tasks: the rows of the task and conversation files, as conversations and as problems.

A task reads one file of the data root (`tasks/arc/ARC-Easy/train.jsonl`, ...; the same name with `.parquet`
works too) and offers each row in two forms: `conversation(i)`, what a model is trained on and prompted with,
and `problem(i)`, what its answer is checked against. How conversations of several
tasks become one sequence is decided by `nanochat.data.chat.mixture`.

The spelling tasks are made from a list of words instead (`nanochat.data.chat.spelling`): a row is a seed.

Rendering to tokens is the work of the tokenizer's chat format, scoring that of `nanochat.evals`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nanochat.data.chat import spelling
from nanochat.data.chat.answers import Problem, final_number
from nanochat.data.chat.messages import FORM, messages_of, shown, wrong_in
from nanochat.data.chat.rows import Numbered, Row, bad_row, read_objects, read_rows
from nanochat.data.chat.task_files import SUFFIXES, task_file
from nanochat.data.chat.task_table import TASKS, Form, TaskDeclaration
from nanochat.errors import ConfigError, DataError

if TYPE_CHECKING:  # at run time the planner would pay for loading the tokenizer
    from nanochat.tokenizer.chat_format import Conversation, Part

Kind = Literal["choice", "math", "code", "chat"]

_CALCULATION = re.compile(r"<<([^<>]*)>>")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class ChatTask:
    """One file of rows, checked when it was loaded, or the seeds that rows are made from."""

    name: str
    kind: Kind
    baseline: float  # accuracy of guessing
    rows: Sequence[Any]  # objects as the loader left them, or seeds
    to_conversation: Callable[[Any], Conversation]
    to_problem: Callable[[Any], Problem]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def conversation(self, index: int) -> Conversation:
        """Return a row as user and assistant messages, the right answer last."""
        return self.to_conversation(self.rows[index])

    def problem(self, index: int) -> Problem:
        """Return what an answer to the row is checked against."""
        return self.to_problem(self.rows[index])


def load_task(root: Path, name: str, split: str = "train") -> ChatTask:
    """Load a task by name from the data root.

    Raises ConfigError for a name or split that does not exist, DataError (naming file and line) for a file
    that cannot be read or a row that lacks something.
    """
    place = task_file(name, split)
    declared = TASKS.get(name)
    if declared and declared.from_words:
        return _load_spelling(declared, split, root / place)
    if declared:
        return _LOADERS[declared.form](name, _existing(root, place))
    path = task_path(root, place)
    if path is None:
        known = [*TASKS, *conversation_names(root)]
        near = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"no task or conversation file {name!r} below {root}",
            hint=f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}",
        )
    return load_conversations(path)


def load_scored_task(root: Path, name: str) -> ChatTask:
    """Load the held-out rows of a task; raise ConfigError for conversations: no answer can be scored."""
    task = load_task(root, name, "test")
    if task.kind == "chat":
        raise ConfigError(
            f"evaluate.chat_tasks has {name!r}, conversations without an answer to score",
            hint="use tasks with choices, numbers or functions",
        )
    return task


def choice_prompt(question: str, letters: Sequence[str], choices: Sequence[str]) -> str:
    """Return the user message of a multiple choice question.

    The letter follows "=" without a space, so that it is the same token as in the answer.
    """
    lines = "".join(f"- {choice}={letter}\n" for letter, choice in zip(letters, choices, strict=True))
    return (
        f"Multiple Choice question: {question}\n{lines}\nRespond only with the letter of the correct answer."
    )


def calculation_parts(answer: str) -> list[Part]:
    """Split an answer at its `<<expression=result>>` marks into text, python and python_output parts."""
    parts: list[Part] = []
    for i, piece in enumerate(_CALCULATION.split(answer)):
        if i % 2:
            expression, _, result = piece.rpartition("=")
            parts.append({"type": "python", "text": expression})
            parts.append({"type": "python_output", "text": result})
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts


def conversation_names(root: Path) -> list[str]:
    """Return the names of the conversation files of a data root."""
    files = (root / "conversations").glob("*.*")
    return sorted({path.stem for path in files if path.suffix in SUFFIXES})


def task_path(root: Path, stem: str) -> Path | None:
    """Return the file of that name in whichever form it has."""
    paths = (root / f"{stem}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _existing(root: Path, stem: str) -> Path:
    path = task_path(root, stem)
    if path is None:
        raise DataError(
            f"{root / stem}: no such file with {' or '.join(SUFFIXES)}",
            hint=f"the data folder needs {stem}{SUFFIXES[0]}; is tasks.source right?",
        )
    return path


def _load_labelled_choices(name: str, path: Path) -> ChatTask:
    rows = read_objects(path, {"question": str, "choices": dict, "answerKey": object})
    return _choice_task(name, path, [(number, _labelled_row(row, path, number)) for number, row in rows])


def _labelled_row(row: Row, path: Path, number: int) -> Row:
    try:
        letters, choices = tuple(row["choices"]["label"]), list(row["choices"]["text"])
    except (KeyError, TypeError) as error:
        raise bad_row(path, number, "choices have no text and label") from error
    return {
        "question": row["question"],
        "letters": letters,
        "choices": choices,
        "answer": str(row["answerKey"]),
    }


def _load_numbered_choices(name: str, path: Path) -> ChatTask:
    rows = read_objects(path, {"question": str, "choices": list, "answer": object})
    return _choice_task(name, path, [(number, _numbered_row(row, path, number)) for number, row in rows])


def _numbered_row(row: Row, path: Path, number: int) -> Row:
    letters = tuple("ABCDEFGHIJ"[: len(row["choices"])])
    by_number = {str(index): letter for index, letter in enumerate(letters)}
    answer = by_number.get(str(row["answer"]))
    if answer is None:
        limit = f"0 to {len(letters) - 1}, the number of a choice"
        raise bad_row(path, number, f"answer is {shown(row['answer'])}, not {limit}")
    subject = row.get("subject")
    return {
        "question": row["question"],
        "letters": letters,
        "choices": row["choices"],
        "answer": answer,
        "group": subject if isinstance(subject, str) else "",
    }


def _choice_task(name: str, path: Path, numbered: list[Numbered]) -> ChatTask:
    for number, row in numbered:
        if wrong := _wrong_choices(row["letters"], row["choices"]):
            raise bad_row(path, number, wrong)
        if row["answer"] not in row["letters"]:
            raise bad_row(
                path, number, f"answer {row['answer']!r} is not one of {', '.join(map(str, row['letters']))}"
            )
    rows = [row for _, row in numbered]
    # To two digits: the real sets have a few questions with three or five choices, and count as 0.25.
    baseline = round(sum(1 / len(row["letters"]) for row in rows) / len(rows), 2)

    def conversation(row: Row) -> Conversation:
        prompt = choice_prompt(row["question"], row["letters"], row["choices"])
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": row["answer"]}]

    def problem(row: Row) -> Problem:
        return Problem(letters=row["letters"], answer=row["answer"], group=row.get("group", ""))

    return ChatTask(name, "choice", baseline, rows, conversation, problem)


def _wrong_choices(letters: Sequence[Any], choices: Sequence[Any]) -> str | None:
    """Return what keeps these from being asked, in words, or None."""
    if len(letters) != len(choices):
        return f"{len(choices)} choices, {len(letters)} labels"
    if len(choices) < 2:
        return f"{len(choices)} choices, which leaves nothing to choose"
    for what, texts in (("label", letters), ("choice", choices)):
        for text in texts:
            if not isinstance(text, str):
                return f"{what} {shown(text)} is not text"
    twice = next((letter for letter in letters if list(letters).count(letter) > 1), None)
    return None if twice is None else f"two choices are labelled {shown(twice)}"


def _load_word_problems(name: str, path: Path) -> ChatTask:
    rows = read_objects(path, {"question": str, "answer": str})
    for number, row in rows:
        gold = final_number(row["answer"])
        if gold is None:
            raise bad_row(path, number, "the answer has no '#### <number>'")
        if not _NUMBER.fullmatch(gold):
            raise bad_row(path, number, f"the answer ends with {shown(gold)}, which is not a number")

    def conversation(row: Row) -> Conversation:
        return [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": calculation_parts(row["answer"])},
        ]

    return ChatTask(
        name,
        "math",
        0.0,
        [row for _, row in rows],
        conversation,
        lambda row: Problem(answer=final_number(row["answer"]) or ""),
    )


def _load_functions(name: str, path: Path) -> ChatTask:
    fields = ("prompt", "entry_point", "canonical_solution", "test")
    numbered = read_objects(path, dict.fromkeys(fields, str))
    for number, row in numbered:
        if wrong := _wrong_function(row):
            raise bad_row(path, number, wrong)
    rows = [row for _, row in numbered]

    def conversation(row: Row) -> Conversation:
        program = f"{row['prompt']}{row['canonical_solution']}".rstrip("\n")
        return [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": f"```python\n{program}\n```"},
        ]

    def problem(row: Row) -> Problem:
        return Problem(
            prompt=row["prompt"],
            entry_point=row["entry_point"],
            test=row["test"],
            solution=row["canonical_solution"],
        )

    return ChatTask(name, "code", 0.0, rows, conversation, problem)


def _wrong_function(row: Row) -> str | None:
    """Return what keeps a function from being tested, in words, or None."""
    name = row["entry_point"]
    if not name.isidentifier():
        return f"entry_point is {shown(name)}, which is not the name of a function"
    if not re.search(rf"def\s+{re.escape(name)}\b", row["prompt"] + row["canonical_solution"]):
        return f"neither prompt nor canonical_solution defines {name}"
    return None if re.search(r"def\s+check\b", row["test"]) else "test does not define check"


def _load_spelling(task: TaskDeclaration, split: str, path: Path) -> ChatTask:
    words, seeds = spelling.read_words(path), spelling.seeds(task.name, split)
    if task.form == "spelled_words":
        words = spelling.reordered(words)
        return ChatTask(task.name, "chat", 0.0, seeds, partial(spelling.spelling, words), lambda _: Problem())
    return ChatTask(
        task.name,
        "math",
        0.0,
        seeds,
        partial(spelling.spelling_bee, words),
        lambda seed: Problem(answer=str(spelling.occurrences(words, seed))),
    )


def load_conversations(path: Path) -> ChatTask:
    """Load a file of conversations; raise DataError naming its line where one cannot be rendered."""
    rows = []
    for number, row in read_rows(path):
        if wrong := wrong_in(row):
            raise bad_row(path, number, wrong, FORM)
        rows.append({"messages": messages_of(row)})

    def conversation(row: Row) -> Conversation:
        return list(row["messages"])

    return ChatTask(path.stem, "chat", 0.0, rows, conversation, lambda _: Problem())


_LOADERS: dict[Form, Callable[[str, Path], ChatTask]] = {
    "labelled_choices": _load_labelled_choices,
    "numbered_choices": _load_numbered_choices,
    "word_problems": _load_word_problems,
    "functions": _load_functions,
}
