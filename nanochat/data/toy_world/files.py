"""Writes the toy world's task folder in the layout and formats of the public benchmarks.

Held-out rows are the tasks' `test` splits, `conversations/test.jsonl` and the CORE bundle; the
others are for training. The same configuration gives the same bytes.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from nanochat.config import ToyWorldConfig
from nanochat.data.chat.task_files import CORE, CORE_BASELINES, CORE_ITEMS, CORE_LIST
from nanochat.data.chat.task_table import TASKS, TaskDeclaration
from nanochat.data.toy_world import exercises, questions
from nanochat.data.toy_world.documents import toy_documents
from nanochat.data.toy_world.world import CAPITALS, NAMES, ToyWorld

_ROW_GROUP = 1024
_CORE_TASKS: tuple[tuple[str, str, str, str, int, str | None], ...] = (
    # label, category, type, shots, baseline in percent, continuation delimiter
    ("toy_facts", "world_knowledge", "multiple_choice", "0", 25, "\nAnswer: "),
    ("toy_capitals", "world_knowledge", "language_modeling", "0", 0, None),
    ("toy_sums", "symbolic_problem_solving", "language_modeling", "0", 0, None),
    ("toy_who", "language_understanding", "schema", "0", 50, None),
)


def write_text_shard(config: ToyWorldConfig, shard_index: int, path: Path) -> None:
    """Write one shard of documents as parquet: zstd, row groups of 1,024."""
    table = pa.table({"text": pa.array(list(toy_documents(config, shard_index)), pa.string())})
    _write_parquet(table, path)


def write_tasks(config: ToyWorldConfig, out: Path) -> None:
    """Write `tasks/`, `conversations/` and `core/` below `out`."""
    world = ToyWorld.build(config.seed)
    for held_out, rows in ((False, config.questions), (True, config.held_out)):
        for task in TASKS.values():
            if task.toy:
                _TASK_WRITERS[task.form](world, task, rows, out, held_out=held_out)
        _write_conversations(world, rows, out / "conversations", held_out=held_out)
    _write_core(world, config.held_out, out / CORE)


def _rng(world: ToyWorld, name: str, held_out: bool) -> random.Random:
    return random.Random(f"{world.seed}/{name}/{'test' if held_out else 'train'}")


def _draw(world: ToyWorld, task: TaskDeclaration, rows: int, *, held_out: bool) -> list[questions.Question]:
    rng = _rng(world, task.name, held_out)
    return questions.questions(world, task.toy, rows, rng, held_out=held_out)


def _write_labelled_choices(
    world: ToyWorld, task: TaskDeclaration, rows: int, out: Path, *, held_out: bool
) -> None:
    drawn = _draw(world, task, rows, held_out=held_out)
    place = task.splits["test" if held_out else "train"].place
    _write_lines(out / f"{place}.jsonl", (_labelled(q, i) for i, q in enumerate(drawn)))


def _write_numbered_choices(
    world: ToyWorld, task: TaskDeclaration, rows: int, out: Path, *, held_out: bool
) -> None:
    extra = 0 if held_out else 5 * len(task.toy)
    drawn = _draw(world, task, rows + extra, held_out=held_out)
    parts = {"test": drawn} if held_out else {"dev": drawn[:extra], "train": drawn[extra:]}
    for split, part in parts.items():
        _write_numbered(out / f"{task.splits[split].place}.parquet", part)


def _write_word_problems(
    world: ToyWorld, task: TaskDeclaration, rows: int, out: Path, *, held_out: bool
) -> None:
    rng = _rng(world, task.name, held_out)
    problems = exercises.word_problems(world.seed, rows, rng, held_out=held_out)
    place = task.splits["test" if held_out else "train"].place
    _write_lines(out / f"{place}.jsonl", ({"question": p.question, "answer": p.answer} for p in problems))


def _write_functions(world: ToyWorld, task: TaskDeclaration, rows: int, out: Path, *, held_out: bool) -> None:
    if held_out:  # the others are conversations
        rows_of_code = (_function(f, i) for i, f in enumerate(_functions(world, rows, held_out=held_out)))
        _write_lines(out / f"{task.splits['test'].place}.jsonl", rows_of_code)


_TASK_WRITERS = {
    "labelled_choices": _write_labelled_choices,
    "numbered_choices": _write_numbered_choices,
    "word_problems": _write_word_problems,
    "functions": _write_functions,
}


def _labelled(question: questions.Question, number: int) -> dict[str, Any]:
    return {
        "id": f"toy_{question.subject}_{number}",
        "question": question.question,
        "choices": {"text": list(question.choices), "label": list("ABCD")},
        "answerKey": "ABCD"[question.answer],
    }


def _write_numbered(path: Path, drawn: list[questions.Question]) -> None:
    columns = {
        "question": pa.array([q.question for q in drawn], pa.string()),
        "subject": pa.array([f"toy_{q.subject}" for q in drawn], pa.string()),
        "choices": pa.array([list(q.choices) for q in drawn], pa.list_(pa.string())),
        "answer": pa.array([q.answer for q in drawn], pa.int64()),
    }
    _write_parquet(pa.table(columns), path)


def _write_conversations(world: ToyWorld, rows: int, out: Path, *, held_out: bool) -> None:
    if not held_out:
        functions = _functions(world, rows, held_out=held_out)
        _write_lines(out / "functions.jsonl", map(_function_talk, functions))
    talks = exercises.small_talk(world, rows, _rng(world, "smalltalk", held_out), held_out=held_out)
    name = "test" if held_out else "smalltalk"
    _write_lines(out / f"{name}.jsonl", ({"messages": talk} for talk in talks))


def _functions(world: ToyWorld, rows: int, *, held_out: bool) -> list[exercises.Function]:
    return exercises.functions(world.seed, rows, _rng(world, "functions", held_out), held_out=held_out)


def _function(function: exercises.Function, number: int) -> dict[str, str]:
    return {
        "task_id": f"Toy/{number}",
        "prompt": function.prompt,
        "entry_point": function.name,
        "canonical_solution": function.body,
        "test": function.test,
    }


def _function_talk(function: exercises.Function) -> dict[str, Any]:
    code = f"```python\n{function.head}{function.body}```"
    messages = [{"role": "user", "content": function.prompt}, {"role": "assistant", "content": code}]
    return {"messages": messages}


def _write_core(world: ToyWorld, rows: int, out: Path) -> None:
    rng = _rng(world, "core", True)
    data = {
        "toy_facts": _core_facts(world, rows, rng),
        "toy_capitals": [
            {"context": f"The capital of {country} is", "continuation": capital}
            for country, capital in CAPITALS.items()
        ],
        "toy_sums": [
            {"context": f"{a} plus {b} is", "continuation": str(a + b)}
            for a in range(1, 10)
            for b in range(1, 10)
        ],
        "toy_who": _core_schema(world, rows, rng),
    }
    tasks = []
    for label, category, kind, shots, _, delimiter in _CORE_TASKS:
        path = f"{category}/{label}.jsonl"
        _write_lines(out / CORE_ITEMS / path, data[label])
        entry: dict[str, Any] = {"label": label, "dataset_uri": path, "num_fewshot": [int(shots)]}
        entry["icl_task_type"] = kind
        if delimiter is not None:
            entry["continuation_delimiter"] = delimiter
        tasks.append(entry)
    (out / CORE_LIST).write_text(yaml.safe_dump({"icl_tasks": tasks}, sort_keys=False))
    header = (
        "Eval Task,Task Category,Task Type,#shots,#datapoints,Random baseline,Centered Metric?,Description"
    )
    with (out / CORE_BASELINES).open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header.split(","))
        for label, category, kind, shots, baseline, _ in _CORE_TASKS:
            words = (category.replace("_", " "), kind.replace("_", " "))
            table.writerow([label, *words, shots, len(data[label]), baseline, "", "About the toy world."])


def _core_facts(world: ToyWorld, rows: int, rng: random.Random) -> list[dict[str, Any]]:
    drawn = questions.questions(world, ("facts",), rows, rng, held_out=True)
    return [{"query": f"Question: {q.question}", "choices": list(q.choices), "gold": q.answer} for q in drawn]


def _core_schema(world: ToyWorld, rows: int, rng: random.Random) -> list[dict[str, Any]]:
    made = []
    for _ in range(rows):
        attribute = rng.choice(tuple(world.people[NAMES[0]]))
        value = world.people[rng.choice(NAMES)][attribute]
        right = rng.choice([n for n in NAMES if world.people[n][attribute] == value])
        wrong = rng.choice([n for n in NAMES if world.people[n][attribute] != value])
        options = [right, wrong]
        rng.shuffle(options)
        made.append(
            {
                "context_options": [f"The {attribute} of {name}" for name in options],
                "continuation": f"is {value}.",
                "gold": options.index(right),
            }
        )
    return made


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _write_parquet(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=3,
        row_group_size=_ROW_GROUP,
        write_statistics=False,
    )
