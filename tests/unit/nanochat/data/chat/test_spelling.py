"""Rows of the spelling tasks: functions of a word list and a seed, counted as the calculator counts."""

from __future__ import annotations

import pytest

from nanochat.chat.calculator import calculate
from nanochat.config import MixtureEntry
from nanochat.data.chat import spelling
from nanochat.data.chat.answers import final_number
from nanochat.data.chat.mixture import mixture
from nanochat.data.chat.task_table import WORDS
from nanochat.data.chat.tasks import load_task
from nanochat.errors import ConfigError, DataError
from nanochat.tokenizer.chat_format import render

LIST = ["strawberry", "banana", "rhythm", "mississippi", "lamp", "quicksand", "zebra"]


@pytest.fixture
def root(tmp_path):
    path = tmp_path / WORDS
    path.parent.mkdir()
    path.write_bytes("\r\n".join([*LIST, ""]).encode())
    return tmp_path


def drawn(task, rows):
    calls = [task.conversation(i)[1]["content"][1]["text"] for i in range(rows)]
    return [tuple(call.split("'")[1::2]) for call in calls]


def test_words_and_letters_are_those_that_upstream_draws(root):
    # Made by running upstream's tasks of February 2026 with this list.
    bee = [load_task(root, "spelling_bee", split) for split in ("train", "test")]
    assert drawn(bee[0], 4) == [("zebra", "r"), ("banana", "b"), ("zebra", "b"), ("banana", "a")]
    assert drawn(bee[1], 4) == [("rhythm", "y"), ("strawberry", "e"), ("zebra", "e"), ("banana", "a")]
    words = [
        [load_task(root, "spelling", split).conversation(i)[1]["content"].split(":")[0] for i in range(4)]
        for split in ("train", "test")
    ]
    assert words[0] == ["quicksand", "mississippi", "quicksand", "mississippi"]
    assert words[1] == ["lamp", "banana", "quicksand", "mississippi"]


@pytest.mark.parametrize("name", ["spelling", "spelling_bee"])
def test_a_row_depends_on_its_number_alone_and_test_rows_are_others(root, name):
    train, test = load_task(root, name), load_task(root, name, "test")
    backwards = [train.conversation(i) for i in reversed(range(63))]
    assert backwards[::-1] == [load_task(root, name).conversation(i) for i in range(63)]
    assert (len(train), len(test)) == ({"spelling": 200_000, "spelling_bee": 80_000}[name], 256)
    assert not set(train.rows) & set(test.rows)


def test_a_word_is_spelled_without_spaces():
    assert spelling.spelling(["lamp"], 5)[1]["content"] == "lamp:l,a,m,p"


def test_letters_are_counted_by_hand_by_the_calculator_and_in_the_answer(root):
    task = load_task(root, "spelling_bee")
    counts = set()
    for i in range(123):
        question, answer = (message["content"] for message in task.conversation(i))
        by_hand, call, output, last = (part["text"] for part in answer)
        word, letter = call.split("'")[1::2]
        assert word in question
        assert letter in question
        hits = [line for line in by_hand.splitlines() if " -> " in line]
        assert [line.split(":")[1][0] for line in hits] == [letter] * len(hits)
        right = task.problem(i).answer
        assert str(len(hits)) == calculate(call) == output == final_number(last) == right
        counts.add(right)
    assert counts == {"0", "1", "2", "3", "4"}


def test_questions_differ_in_language_quotes_and_marks(root):
    task = load_task(root, "spelling_bee")
    questions = [task.conversation(i)[0]["content"] for i in range(1000)]
    assert len(set(questions)) > 500
    assert 0.45 < sum(q.endswith("?") for q in questions) / 1000 < 0.55
    assert 0.05 < sum(not q.isascii() for q in questions) / 1000 < 0.4
    assert not any("{" in q for q in questions)


def test_what_the_calculator_answers_is_no_target(root, tokenizer):
    conversation = load_task(root, "spelling_bee").conversation(3)
    ids, mask = render(tokenizer, conversation)
    start, end = (ids.index(tokenizer.special(name)) for name in ("output_start", "output_end"))
    assert tokenizer.decode(ids[start + 1 : end]) == conversation[1]["content"][2]["text"]
    assert not any(mask[start : end + 1])
    call = ids.index(tokenizer.special("python_start"))
    assert all(mask[call:start])
    targets = tokenizer.decode([i for i, trained in zip(ids, mask, strict=True) if trained])
    parts = [p["text"] for p in conversation[1]["content"] if p["type"] != "python_output"]
    assert targets == "".join(parts)


def test_a_mixture_takes_as_many_rows_as_it_asks_for(root):
    entries = (MixtureEntry(task="spelling", rows=300), MixtureEntry(task="spelling_bee", rows=301))
    whole = mixture(root, entries, 42)
    assert len(whole) == 601
    assert sum(isinstance(row[1]["content"], list) for row in whole) == 301


def test_spelling_joins_no_mixture_that_does_not_name_it(root):
    with pytest.raises(DataError, match="no training data"):
        mixture(root, (), 42)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DataError, match=r"tasks/words\.txt: not a readable word list") as caught:
        load_task(tmp_path, "spelling_bee", "test")
    assert "tasks.words_url" in caught.value.hint
    with pytest.raises(ConfigError, match="no split 'dev'"):
        load_task(tmp_path, "spelling", "dev")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "no words"),
        ("<!DOCTYPE html>\n", "line 1 is '<!DOCTYPE html>'"),
        ("lamp\ndon't\n", 'line 2 is "don\'t"'),
        ("lamp\n\nzebra\n", "line 2 is ''"),
        ("a" * 65, "line 1 is 'a"),
    ],
)
def test_a_file_that_is_no_list_of_words_is_told_by_its_line(tmp_path, content, found):
    path = tmp_path / "words.txt"
    path.write_text(content)
    with pytest.raises(DataError, match="not a list of words") as caught:
        spelling.read_words(path)
    assert found in str(caught.value)
