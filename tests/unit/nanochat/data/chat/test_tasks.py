from __future__ import annotations

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.config import MixtureEntry
from nanochat.data.chat.mixture import mixture
from nanochat.data.chat.tasks import calculation_parts, choice_prompt, load_task
from nanochat.errors import ConfigError, DataError

TASKS = ("arc_easy", "arc_challenge", "mmlu", "gsm8k")


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def arc_row(question="Which?", labels=("A", "B"), key="B"):
    choices = {"text": [f"choice {i}" for i in range(len(labels))], "label": list(labels)}
    return {"id": "x", "question": question, "choices": choices, "answerKey": key}


def test_the_choice_prompt_has_the_letter_right_after_the_equals_sign():
    assert choice_prompt("Which?", "AB", ["one", "two"]) == (
        "Multiple Choice question: Which?\n- one=A\n- two=B\n\n"
        "Respond only with the letter of the correct answer."
    )


def test_calculations_become_python_and_output_parts():
    assert calculation_parts("It is 2*3 = <<2*3=6>>6.\n#### 6") == [
        {"type": "text", "text": "It is 2*3 = "},
        {"type": "python", "text": "2*3"},
        {"type": "python_output", "text": "6"},
        {"type": "text", "text": "6.\n#### 6"},
    ]
    assert calculation_parts("<<1==1=True>>")[0]["text"] == "1==1"


def test_labels_of_the_data_are_kept(tmp_path):
    path = tmp_path / "tasks/arc/ARC-Easy/test.jsonl"
    write(path, [arc_row(labels=("1", "2", "3"), key="3"), arc_row()])
    task = load_task(tmp_path, "arc_easy", "test")
    assert task.problem(0).letters == ("1", "2", "3")
    assert task.problem(0).answer == task.conversation(0)[-1]["content"] == "3"
    assert task.baseline == 0.42


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (arc_row(key="C"), "line 2: answer 'C' is not one of A, B"),
        ({"question": "Which?", "answerKey": "A"}, "line 2: no choices"),
        (
            {"question": "Which?", "answerKey": "A", "choices": 3},
            "line 2: choices is 3, which is not an object",
        ),
        ({"question": "Which?", "answerKey": "A", "choices": {}}, "line 2: choices have no text"),
        (arc_row(labels=("A", "A"), key="A"), "line 2: two choices are labelled 'A'"),
        (arc_row(labels=("A", 2), key="A"), "line 2: label 2 is not text"),
        (arc_row(labels=("A", None), key="A"), "line 2: label None is not text"),
        (arc_row(labels=("A",), key="A"), "line 2: 1 choices, which leaves nothing to choose"),
        (
            {**arc_row(), "choices": {"text": ["one", None], "label": ["A", "B"]}},
            "line 2: choice None is not text",
        ),
        ({**arc_row(), "question": ["Which?"]}, r"line 2: question is \['Which\?'\], which is not text"),
    ],
)
def test_a_bad_row_is_named_with_its_file(tmp_path, row, message):
    path = tmp_path / "tasks/arc/ARC-Easy/test.jsonl"
    write(path, [arc_row(), row])
    with pytest.raises(DataError, match=message) as caught:
        load_task(tmp_path, "arc_easy", "test")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("gold", ["#### ,", "#### 1.2.3", "#### -,."])
def test_a_word_problem_whose_answer_is_not_a_number_is_named(tmp_path, gold):
    rows = [{"question": "How many?", "answer": answer} for answer in ("#### -1,234.50", gold)]
    path = tmp_path / "tasks/gsm8k/test.jsonl"
    write(path, rows[:1])
    assert load_task(tmp_path, "gsm8k", "test").problem(0).answer == "-1234.50"
    write(path, rows)
    with pytest.raises(DataError, match=r"gsm8k/test\.jsonl, line 2: the answer ends with .*not a number"):
        load_task(tmp_path, "gsm8k", "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entry_point": "f()"}, r"entry_point is 'f\(\)', which is not the name of a function"),
        ({"entry_point": "g"}, "neither prompt nor canonical_solution defines g"),
        ({"test": "assert f() == 1"}, "test does not define check"),
        ({"test": None}, "no test"),
    ],
)
def test_a_function_that_cannot_be_tested_is_named(tmp_path, change, message):
    row = {"prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n"}
    row["test"] = "def check(candidate):\n    assert candidate() == 1\n"
    write(tmp_path / "tasks/humaneval/HumanEval.jsonl", [row, {**row, **change}])
    with pytest.raises(DataError, match=rf"HumanEval\.jsonl, line 2: {message}"):
        load_task(tmp_path, "humaneval", "test")


@pytest.mark.parametrize("answer", [4, -1, "B", 1.5, []])
def test_an_answer_that_numbers_no_choice_is_named(tmp_path, answer):
    row = {"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": 3}
    write(tmp_path / "tasks/mmlu/test.jsonl", [row, {**row, "answer": answer}])
    with pytest.raises(DataError, match=r"mmlu/test\.jsonl, line 2: answer is .*, not 0 to 3"):
        load_task(tmp_path, "mmlu", "test")


def test_a_question_belongs_to_its_subject_where_it_has_one(tmp_path):
    row = {"question": "Which?", "choices": ["a", "b"], "answer": 1}
    subjects = [{"subject": "anatomy"}, {}, {"subject": None}, {"subject": 5}]
    write(tmp_path / "tasks/mmlu/test.jsonl", [{**row, **subject} for subject in subjects])
    task = load_task(tmp_path, "mmlu", "test")
    assert [task.problem(i).group for i in range(len(task))] == ["anatomy", "", "", ""]


def test_an_answer_that_is_no_text_is_named(tmp_path):
    write(tmp_path / "tasks/gsm8k/test.jsonl", [{"question": "2+3?", "answer": 5}])
    with pytest.raises(DataError, match="line 1: answer is 5, which is not text") as caught:
        load_task(tmp_path, "gsm8k", "test")
    assert caught.value.hint


def test_rows_of_a_parquet_file_are_numbered_as_rows(tmp_path):
    path = tmp_path / "conversations/talk.parquet"
    path.parent.mkdir()
    table = pa.table({"messages": [[{"role": "user", "content": "hi"}]]})
    pq.write_table(table, path)
    with pytest.raises(DataError, match=r"talk\.parquet, row 1: roles user do not alternate"):
        load_task(tmp_path, "talk")


def test_a_line_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "conversations/talk.jsonl"
    write(path, [])
    path.write_text('{"messages": \n')
    with pytest.raises(DataError, match=r"talk\.jsonl, line 1: not JSON"):
        load_task(tmp_path, "talk")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('{"messages": [], "messages": []}', "the key 'messages' is there twice"),
        ('[{"role": "user", "content": "a", "content": "b"}]', "the key 'content' is there twice"),
        ('{"metadata": NaN}', "NaN is not a JSON value"),
        ("[" * 100_000, "brackets are nested too deeply"),
        ('{"id": ' + "9" * 5000 + "}", "Exceeds the limit"),
    ],
    ids=["key", "key below", "nan", "deep", "long number"],
)
def test_a_line_that_readers_take_in_different_ways_is_named(tmp_path, line, wrong):
    path = tmp_path / "conversations/talk.jsonl"
    path.parent.mkdir()
    path.write_text(f"\n{line}\n")
    with pytest.raises(DataError, match=rf"talk\.jsonl, line 2: {wrong}"):
        load_task(tmp_path, "talk")


def test_a_date_that_python_does_not_have_is_named(tmp_path):
    (tmp_path / "conversations").mkdir()
    talk = {"messages": [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]]}
    table = pa.table({**talk, "created_at": pa.array([2**62], pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "conversations/talk.parquet")
    with pytest.raises(DataError, match=r"talk\.parquet: cannot be read: .*out of range"):
        load_task(tmp_path, "talk")


@pytest.mark.parametrize("below", [False, True])
def test_two_columns_of_one_name_are_named(tmp_path, below):
    (tmp_path / "conversations").mkdir()
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["messages", "messages"])
    if below:
        twice = pa.table({"messages": twice.to_struct_array()})
    pq.write_table(twice, tmp_path / "conversations/talk.parquet")
    with pytest.raises(DataError, match=r"talk\.parquet: cannot be read: .*(Multiple|duplicate)"):
        load_task(tmp_path, "talk")


def test_line_separators_inside_a_json_string_do_not_end_the_row(tmp_path):
    messages = [{"role": "user", "content": "a\u2028b\x85c"}, {"role": "assistant", "content": "d"}]
    path = tmp_path / "conversations/talk.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps({"messages": messages}, ensure_ascii=False) + "\n", "utf-8")
    assert load_task(tmp_path, "talk").conversation(0) == messages


def test_a_wrong_conversation_is_named_by_its_line_in_the_file(tmp_path):
    good = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    path = tmp_path / "conversations/talk.jsonl"
    path.parent.mkdir()
    lines = ["", json.dumps({"messages": good}), "", json.dumps({"messages": [good[0], good[0]]})]
    path.write_text("\r\n".join(lines), newline="")
    with pytest.raises(DataError, match=r"talk\.jsonl, line 4: roles user, user do not alternate") as caught:
        load_task(tmp_path, "talk")
    assert '{"messages": [' in caught.value.hint


def test_a_line_may_be_the_list_of_messages_alone(tmp_path):
    good = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "nanochat"}]
    write(tmp_path / "conversations/identity.jsonl", [good, {"messages": good}])
    path = tmp_path / "conversations/identity.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # the mark with which some editors begin a file
    task = load_task(tmp_path, "identity")
    assert [task.conversation(i) for i in range(len(task))] == [good, good]


def test_unknown_names_and_splits_are_refused_with_the_nearest(tmp_path):
    write(tmp_path / "conversations/smalltalk.jsonl", [])
    with pytest.raises(ConfigError) as caught:
        load_task(tmp_path, "smaltalk")
    assert caught.value.hint == "did you mean smalltalk?"
    with pytest.raises(ConfigError, match="no split 'validation'"):
        load_task(tmp_path, "gsm8k", "validation")
    with pytest.raises(DataError, match="no such file"):
        load_task(tmp_path, "gsm8k")


def test_a_mixture_holds_the_asked_rows_in_a_fixed_order(tmp_path):
    for name in ("a", "b"):
        rows = [
            [{"role": "user", "content": f"{name}{i}"}, {"role": "assistant", "content": "x"}]
            for i in range(20)
        ]
        write(tmp_path / f"conversations/{name}.jsonl", [{"messages": m} for m in rows])
    entries = [MixtureEntry(task="a", rows=5, repeat=2), MixtureEntry(task="b")]
    asked = [m[0]["content"] for m in mixture(tmp_path, entries, 1)]
    assert len(asked) == 30
    from_a = [text for text in asked if text.startswith("a")]
    assert len(set(from_a)) == 5
    assert sorted(set(from_a) | {t for t in asked if t.startswith("b")}) == sorted(set(asked))
    assert asked == [m[0]["content"] for m in mixture(tmp_path, entries, 1)]
    assert asked != [m[0]["content"] for m in mixture(tmp_path, entries, 2)]
    assert asked[3:6] == [m[0]["content"] for m in mixture(tmp_path, entries, 1)[3:6]]


def test_a_mixture_is_in_the_published_order(tmp_path):
    for name in ("a", "b", "c"):
        rows = [
            [{"role": "user", "content": f"{name}{i}"}, {"role": "assistant", "content": "x"}]
            for i in range(7)
        ]
        write(tmp_path / f"conversations/{name}.jsonl", [{"messages": m} for m in rows])
    entries = [
        MixtureEntry(task="a", repeat=2),
        MixtureEntry(task="b", rows=3),
        MixtureEntry(task="c", rows=4, shuffle=False),
    ]
    # Row i of a shuffled data set is row PERMUTATION[i] of the file; a repeated one is listed twice.
    permutation = [3, 2, 6, 4, 1, 5, 0]  # numpy, seed 42
    listed = [f"a{i}" for i in permutation] * 2 + [f"b{i}" for i in permutation[:3]]
    listed += [f"c{i}" for i in range(4)]
    random.Random(42).shuffle(listed)
    assert [m[0]["content"] for m in mixture(tmp_path, entries, 42)] == listed


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", TASKS)
def test_real_task_files_load_whole(shared_data, name, split):
    task = load_task(shared_data, name, split)
    assert task.baseline == (0.0 if name == "gsm8k" else 0.25)
    for i in range(len(task)):
        user, assistant = task.conversation(i)
        problem = task.problem(i)
        if task.kind == "choice":
            assert assistant["content"] == problem.answer
            assert f"={problem.answer}\n" in user["content"]
        else:
            assert float(problem.answer) == float(
                assistant["content"][-1]["text"].split()[-1].replace(",", "")
            )


def test_real_functions_pass_their_own_tests(shared_data):
    task = load_task(shared_data, "humaneval", "test")
    assert len(task) == 100
    problem = task.problem(0)
    program = f"{problem.prompt}{problem.solution}\n{problem.test}\ncheck({problem.entry_point})\n"
    exec(compile(program, "humaneval", "exec"), {})


def test_one_conversation_of_each_real_file(shared_data):
    for path in sorted((shared_data / "conversations").glob("*.jsonl")):
        conversation = load_task(shared_data, path.stem).conversation(0)
        assert [m["role"] for m in conversation[:2]] == ["user", "assistant"]
