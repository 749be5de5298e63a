from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from nanochat.config import ToyWorldConfig
from nanochat.data.chat.tasks import load_task
from nanochat.data.toy_world import questions
from nanochat.data.toy_world.documents import toy_documents
from nanochat.data.toy_world.exercises import functions, word_problems
from nanochat.data.toy_world.files import write_tasks, write_text_shard
from nanochat.data.toy_world.world import Calculation, ToyWorld, calculations

SMALL = ToyWorldConfig(documents_per_shard=300, questions=300, held_out=60)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_tasks(SMALL, folder)
    return folder


def asked(root, name, split) -> set[str]:
    task = load_task(root, name, split)
    texts = [m["content"] for i in range(len(task)) for m in task.conversation(i) if m["role"] == "user"]
    if task.kind == "choice":
        return {content(row) for row in task.rows}
    return set(texts)


def content(row) -> str:
    """What a question with choices asks, whatever the wording: four numbers, or a word with its kind."""
    if row["question"].endswith("the largest?"):
        return " ".join(sorted(row["choices"]))
    return row["choices"][row["letters"].index(row["answer"])]


def test_the_same_configuration_gives_the_same_bytes(world, tmp_path):
    write_tasks(SMALL, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(world)
    for name in ("a", "b"):
        write_text_shard(SMALL, 0, tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_another_seed_or_shard_gives_other_documents():
    documents = set(toy_documents(SMALL, 0))
    assert documents != set(toy_documents(SMALL, 1))
    assert documents != set(toy_documents(SMALL.model_copy(update={"seed": 2}), 0))


@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge", "mmlu", "gsm8k"])
def test_held_out_questions_are_in_no_training_file(world, name):
    test = asked(world, name, "test")
    assert len(test) >= 4  # words; of the others more
    trained = set.union(
        *(asked(world, task, "train") for task in ("arc_easy", "arc_challenge", "mmlu", "gsm8k", "smalltalk"))
    )
    assert not test & trained


@pytest.mark.parametrize("name", ["arc_easy", "mmlu"])
def test_a_held_out_word_is_not_even_a_wrong_choice_in_training(world, name):
    choices = {choice for row in load_task(world, name, "train").rows for choice in row["choices"]}
    assert choices and not choices & asked(world, name, "test")


@pytest.mark.parametrize("seed", range(8))
def test_there_are_choices_for_every_question_whatever_the_seed_holds_out(seed):
    world = ToyWorld.build(seed)
    for subject in questions.CHOICE_SUBJECTS:
        for held_out in (False, True):
            for item in questions.items(world, subject, held_out=held_out):
                assert len(set(item.wrong) - {item.answer}) >= questions.CHOICES - 1


def test_held_out_calculations_are_asked_for_in_no_order_and_no_task():
    held_out = {c.content() for c in calculations(SMALL.seed, held_out=True)}
    kept = {c.content() for c in calculations(SMALL.seed, held_out=False)}
    assert len(held_out) > 50 and len(kept) > 200 and not held_out & kept
    assert Calculation("+", 3, 4).content() == Calculation("+", 4, 3).content()
    assert Calculation("-", 4, 3).content() != Calculation("+", 4, 3).content()
    rng, world = random.Random(1), ToyWorld.build(SMALL.seed)
    problems = word_problems(SMALL.seed, 500, rng, held_out=False)
    assert not held_out & {parsed(problem.expression).content() for problem in problems}
    sums = questions.items(world, "arithmetic", held_out=False)
    assert sums and not held_out & {item.content for item in sums}


def parsed(expression) -> Calculation:
    a, sign, b = re.fullmatch(r"(\d+)(\D)(\d+)", expression).groups()
    return Calculation(sign, int(a), int(b))


def test_held_out_functions_do_what_no_training_function_does_with_these_arguments():
    rng = random.Random(1)
    test, train = ({f.body for f in functions(1, 600, rng, held_out=h)} for h in (True, False))
    assert len(test) > 5 and len(train) > 20 and not test & train


def test_held_out_functions_and_talks_are_in_no_training_file(world):
    assert not asked(world, "humaneval", "test") & asked(world, "functions", "train")
    greetings = {text for text in asked(world, "test", "train") if "I am" in text or "What" in text}
    assert greetings
    assert not greetings & asked(world, "smalltalk", "train")


def test_documents_hold_no_held_out_question(world):
    written = list(toy_documents(SMALL, 0))
    documents = "\n".join(written)
    for name in ("gsm8k", "humaneval"):
        assert not [text for text in asked(world, name, "test") if text in documents]
    # Lists that are asked about by kind; the others give back the words themselves.
    matched = [text.partition("\n\n")[0] for text in written if re.search(r"^\n? an? ", text, re.MULTILINE)]
    listed = {word for text in matched for word in re.findall(r"^- (\S+)=", text, re.MULTILINE)}
    assert len(listed) > 50
    for name in ("arc_easy", "mmlu"):
        assert not asked(world, name, "test") & listed


@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge", "mmlu"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_four_different_choices_and_letters_spread_evenly(world, name, split):
    task = load_task(world, name, split)
    answers = Counter(task.problem(i).answer for i in range(len(task)))
    assert task.baseline == 0.25
    assert set(answers) == set("ABCD")
    assert max(answers.values()) < 0.5 * len(task)
    for row in task.rows:
        assert len(set(row["choices"])) == 4


def test_no_test_row_occurs_twice(world):
    for name in ("arc_easy", "arc_challenge", "mmlu", "gsm8k", "humaneval"):
        task = load_task(world, name, "test")
        prompts = [task.conversation(i)[0]["content"] for i in range(len(task))]
        assert len(set(prompts)) == len(prompts) == 60


def test_word_problems_compute_to_their_answer(world):
    for split in ("train", "test"):
        task = load_task(world, "gsm8k", split)
        for i in range(len(task)):
            call, result, text = task.conversation(i)[1]["content"]
            assert str(eval(call["text"])) == result["text"] == task.problem(i).answer
            assert text["text"].endswith(f"#### {result['text']}")


def test_functions_pass_their_tests_and_the_training_answers_do_too(world):
    task = load_task(world, "humaneval", "test")
    for i in range(len(task)):
        problem = task.problem(i)
        program = f"{problem.prompt}{problem.solution}\n{problem.test}\ncheck({problem.entry_point})\n"
        exec(compile(program, "toy", "exec"), {})
        wrong = program.replace("return ", "return 1 + ")
        with pytest.raises(AssertionError):
            exec(compile(wrong, "toy", "exec"), {})


def test_prompts_are_short(world):
    for name in ("arc_easy", "arc_challenge", "mmlu", "gsm8k"):
        task = load_task(world, name, "train")
        assert max(len(task.conversation(i)[0]["content"]) for i in range(len(task))) < 200


def test_the_core_bundle_names_its_files_and_baselines(world):
    core = world / "core"
    tasks = yaml.safe_load((core / "core.yaml").read_text())["icl_tasks"]
    with (core / "eval_meta_data.csv").open() as file:
        table = {row["Eval Task"]: row for row in csv.DictReader(file)}
    assert {t["icl_task_type"] for t in tasks} == {"multiple_choice", "schema", "language_modeling"}
    fields = {
        "multiple_choice": {"query", "choices", "gold"},
        "schema": {"context_options", "continuation", "gold"},
        "language_modeling": {"context", "continuation"},
    }
    for task in tasks:
        lines = (core / "eval_data" / task["dataset_uri"]).read_text().splitlines()
        assert all(set(json.loads(line)) == fields[task["icl_task_type"]] for line in lines)
        assert int(table[task["label"]]["#datapoints"]) == len(lines) > 10
        assert float(table[task["label"]]["Random baseline"]) in (0, 25, 50)


def test_the_layout_is_that_of_the_real_data(world, shared_data):
    ours = {p for p in contents(world) if p.startswith("tasks/")}
    real = {str(p.relative_to(shared_data)) for p in (shared_data / "tasks").rglob("*") if p.is_file()}
    assert ours == real
