from __future__ import annotations

import json
import random

import pytest
import torch

from nanochat.errors import DataError
from nanochat.evals.core.bundle import CoreTask, load_core
from nanochat.evals.core.score import answered, common_prefix

WORDS = [
    "the",
    "a",
    "river",
    "runs",
    "down",
    "to",
    "old",
    "sea",
    "and",
    "hill",
    "gold",
    "time",
    "is",
    "was",
    "on",
    "under",
    "moon",
]


def _texts(rng, count, length):
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, length))) for _ in range(count)]


def _task(kind, n=14, shots=2):
    rng = random.Random(kind)
    items = []
    for _ in range(n):
        if kind == "multiple_choice":
            item = {"query": _texts(rng, 1, 6)[0], "choices": _texts(rng, 3, 4), "gold": rng.randrange(3)}
        elif kind == "schema":
            item = {
                "context_options": _texts(rng, 2, 5),
                "continuation": _texts(rng, 1, 4)[0],
                "gold": rng.randrange(2),
            }
        else:
            item = {"context": _texts(rng, 1, 5)[0] + " ", "continuation": rng.choice(WORDS)}
        items.append(item)
    return CoreTask(label="t", kind=kind, delimiter=" ", shots=shots, baseline=0.25, items=items)


def _naive_loss(model, tokens, start):
    with torch.inference_mode():
        logits = model(torch.tensor([tokens[:-1]]))[0]
    losses = -logits.log_softmax(-1)[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]
    return losses[start - 1 :].mean().item(), bool(
        (logits.argmax(-1) == torch.tensor(tokens[1:]))[start - 1 :].all()
    )


def _naive_right(model, tokenizer, task, index):
    rows = [[tokenizer.special("bos"), *tokenizer.encode(text)] for text in task.prompts(index)]
    if task.kind == "language_modeling":
        return _naive_loss(model, rows[1], len(rows[0]))[1]
    if task.kind == "schema":
        common = common_prefix([row[::-1] for row in rows])
        losses = [_naive_loss(model, row, len(row) - common)[0] for row in rows]
    else:
        common = min(common_prefix(rows), min(map(len, rows)) - 1)
        losses = [_naive_loss(model, row, common)[0] for row in rows]
    return losses.index(min(losses)) == task.items[index]["gold"]


def _right(model, tokenizer, task):
    batches = answered(model, tokenizer, task, range(len(task.items)))
    return {result.item: result.right[0] for batch in batches for result in batch}


@pytest.mark.parametrize("kind", ["multiple_choice", "schema", "language_modeling"])
def test_batched_scores_equal_one_row_at_a_time(model, tokenizer, kind):
    task = _task(kind)
    if kind == "language_modeling":  # make some items right: continue with what the model finds likeliest
        # No delimiter: the likeliest character must be the first that is scored.
        task = CoreTask(label="t", kind=kind, delimiter="", shots=0, baseline=0.0, items=task.items)
        items = []
        for index, item in enumerate(task.items):
            prompt = [tokenizer.special("bos"), *tokenizer.encode(task.prompts(index)[0])]
            with torch.inference_mode():
                best = int(model(torch.tensor([prompt]))[0, -1, :128].argmax())
            items.append({**item, "continuation": chr(best) if index % 2 else "zq"})
        task = CoreTask(label="t", kind=kind, delimiter="", shots=0, baseline=0.0, items=items)
    right = _right(model, tokenizer, task)
    assert right == {i: _naive_right(model, tokenizer, task, i) for i in range(len(task.items))}
    assert len(set(right.values())) == 2


def test_long_texts_lose_their_beginning_and_are_still_scored(model, tokenizer):
    # Ten contexts of 64 tokens are kept: what is before them must not matter.
    ends = ["gold", "sea"]

    def right(query, gold):
        items = [{"query": query, "choices": ends, "gold": gold}]
        task = CoreTask(label="t", kind="multiple_choice", delimiter=" ", shots=0, baseline=0.5, items=items)
        return _right(model, tokenizer, task)[0]

    tail = "moon " * 200
    for gold in (0, 1):
        assert right("x" * 500 + tail, gold) == right("y" * 900 + tail, gold)
    assert right(tail, 0) + right(tail, 1) == 1


def test_examples_are_fixed_solved_and_never_the_item_itself():
    task = _task("multiple_choice", n=6, shots=3)
    for index in range(6):
        assert task.examples(index) == task.examples(index)
        assert task.items[index] not in task.examples(index)
        assert len(task.examples(index)) == 3
    expected = random.Random(1234 + 2).sample([0, 1, 3, 4, 5], 3)
    assert task.examples(2) == [task.items[i] for i in expected]


def test_more_examples_than_data_are_clamped():
    task = _task("schema", n=4, shots=10)
    assert len(task.examples(0)) == 3


def test_prompts_have_blank_lines_between_examples_and_the_delimiter_before_the_answer():
    items = [
        {"context": " 1+1 = ", "continuation": "2"},
        {"context": "2+2 =", "continuation": "4"},
    ]
    task = CoreTask(
        label="t", kind="language_modeling", delimiter="\nAnswer: ", shots=1, baseline=0.0, items=items
    )
    assert task.prompts(0) == ["2+2 =\nAnswer: 4\n\n1+1 =\nAnswer:", "2+2 =\nAnswer: 4\n\n1+1 =\nAnswer: 2"]
    schema = CoreTask(
        label="t",
        kind="schema",
        delimiter=" ",
        shots=0,
        baseline=0.5,
        items=[{"context_options": ["A so", "B so"], "continuation": "won.", "gold": 1}],
    )
    assert schema.prompts(0) == ["A so won.", "B so won."]


def _write_bundle(root, items, label="copa", kind="multiple_choice"):
    folder = root / "core"
    (folder / "eval_data").mkdir(parents=True)
    (folder / "core.yaml").write_text(
        f"icl_tasks:\n-\n  label: {label}\n  dataset_uri: x.jsonl\n"
        f"  num_fewshot: [0]\n  icl_task_type: {kind}\n"
    )
    (folder / "eval_meta_data.csv").write_text('Eval Task,Random baseline,Description\ncopa,50,"a, b"\n')
    (folder / "eval_data/x.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return root


def test_bundle_is_shuffled_then_cut(tmp_path):
    items = [{"query": str(i), "choices": ["a", "b"], "gold": 0} for i in range(20)]
    [task] = load_core(_write_bundle(tmp_path, items), 5)
    expected = list(items)
    random.Random(1337).shuffle(expected)
    assert list(task.items) == expected[:5]
    assert [items[task.number(index)] for index in range(5)] == expected[:5]
    assert (task.baseline, task.delimiter, task.shots) == (0.5, " ", 0)


CHOICE = {"query": "q", "choices": ["a", "b"], "gold": 1}
SCHEMA = {"context_options": ["a", "b"], "continuation": "c", "gold": 0}
LANGUAGE = {"context": "a", "continuation": "b"}


@pytest.mark.parametrize(
    ("kind", "item", "message"),
    [
        ("multiple_choice", {"query": "q"}, "no choices, gold"),
        ("multiple_choice", {**CHOICE, "gold": 2}, "gold is 2, not 0 to 1"),
        ("multiple_choice", {**CHOICE, "gold": -1}, "gold is -1, not the number of an option"),
        ("multiple_choice", {**CHOICE, "gold": "1"}, "gold is '1', not the number of an option"),
        ("multiple_choice", {**CHOICE, "gold": True}, "gold is True, not the number of an option"),
        ("multiple_choice", {**CHOICE, "gold": 1.0}, "gold is 1.0, not the number of an option"),
        ("multiple_choice", {**CHOICE, "choices": "ab"}, "choices is 'ab', which is not a list"),
        (
            "multiple_choice",
            {**CHOICE, "choices": ["a", None]},
            "choices has one that is None, which is not te",
        ),
        ("multiple_choice", {**CHOICE, "choices": ["a", " "]}, "choices has one that is empty"),
        ("multiple_choice", {**CHOICE, "choices": ["a"], "gold": 0}, "which is not a list of two or more"),
        ("multiple_choice", {**CHOICE, "query": 3}, "query is 3, which is not text"),
        (
            "schema",
            {**SCHEMA, "context_options": [["a"], "b"]},
            r"has one that is \['a'\], which is not text",
        ),
        ("schema", {**SCHEMA, "gold": 2}, "gold is 2, not 0 to 1"),
        ("language_modeling", {**LANGUAGE, "continuation": ""}, "continuation is empty"),
        ("language_modeling", {**LANGUAGE, "context": ["a"]}, r"context is \['a'\], which is not text"),
        ("language_modeling", [], "no context, continuation"),
    ],
)
def test_an_item_that_cannot_be_scored_is_named_by_its_line(tmp_path, kind, item, message):
    good = {"multiple_choice": CHOICE, "schema": SCHEMA, "language_modeling": LANGUAGE}[kind]
    with pytest.raises(DataError, match=rf"x\.jsonl, line 2: .*{message}"):
        load_core(_write_bundle(tmp_path, [good, item], kind=kind), None)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("core.yaml", "label: copa", "label: other", "no baseline"),
        ("core.yaml", "label: copa", "label: ../copa", r"lacks or garbles '\.\./copa' is not a name"),
        ("core.yaml", "multiple_choice", "essay", "type 'essay'"),
        ("core.yaml", "multiple_choice", "[]", r"type \[\]"),
        ("core.yaml", "[0]", "[-1]", "task copa: num_fewshot is -1"),
        ("core.yaml", "[0]", "[0]\n  continuation_delimiter: 3", "task copa: continuation_delimiter is 3"),
        ("core.yaml", "label: copa", "label: {", r"core\.yaml: cannot be read"),
        ("core.yaml", "x.jsonl", "y.jsonl", r"y\.jsonl does not exist, but core\.yaml lists it"),
        (
            "eval_meta_data.csv",
            "copa,50",
            "copa,100",
            r"eval_meta_data\.csv, line 2: task copa has a baseline",
        ),
        (
            "eval_meta_data.csv",
            "copa,50",
            "copa,nan",
            r"eval_meta_data\.csv, line 2: task copa has a baseline",
        ),
        ("eval_meta_data.csv", "copa,50", "copa,50,x\ncopa,50", "line 3: task copa is there twice"),
    ],
)
def test_a_broken_list_of_tasks_is_a_data_error_that_says_where(tmp_path, file, old, new, message):
    path = _write_bundle(tmp_path, [CHOICE]) / "core" / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        load_core(tmp_path, None)


def test_two_tasks_of_one_label_are_refused(tmp_path):
    path = _write_bundle(tmp_path, [CHOICE]) / "core/core.yaml"
    path.write_text(path.read_text() + path.read_text().partition("\n")[2])
    with pytest.raises(DataError, match="two tasks labelled copa"):
        load_core(tmp_path, None)


def test_missing_bundle_names_the_way_out(tmp_path):
    with pytest.raises(DataError) as caught:
        load_core(tmp_path, None)
    assert "evaluate.core=false" in caught.value.hint


def test_real_bundle_has_21_tasks_with_prompts(shared_data):
    tasks = load_core(shared_data, 3)
    assert len(tasks) == 21
    assert {task.label: task.baseline for task in tasks}["boolq"] == 0.62
    for task in tasks:
        assert all(isinstance(prompt, str) for prompt in task.prompts(0))
