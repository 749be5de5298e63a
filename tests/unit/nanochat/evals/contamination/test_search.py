"""The search of a text shard for the toy world's tasks, with items planted in the text."""

from __future__ import annotations

import json
import threading

import polars as pl
import pytest

from nanochat.config import EvaluateConfig, OverlapConfig, ToyWorldConfig
from nanochat.data.chat.tasks import load_task
from nanochat.data.text.left_out import read_left_out
from nanochat.data.toy_world.files import write_tasks
from nanochat.errors import ConfigError, DataError, Interrupted
from nanochat.evals.contamination import ngrams
from nanochat.evals.contamination import search as contamination
from nanochat.evals.contamination.overlap import FILE_NAME, Overlap
from nanochat.evals.contamination.search import find_overlap, items_of_tasks
from nanochat.evals.core.bundle import load_core
from nanochat.runtime import Runtime

CONFIG = OverlapConfig(ngram_words=13, chat_tasks=EvaluateConfig().chat_tasks, core=True)
FILLER = "nothing of interest is told in these documents"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    root = tmp_path_factory.mktemp("tasks")
    write_tasks(ToyWorldConfig(questions=5, held_out=23), root)
    return root


@pytest.fixture
def search(tasks, tmp_path):
    def run(documents, config=CONFIG, name="shard", root=tasks, **runtime):
        for folder in (tmp_path / name, tmp_path / f"{name}_out"):
            folder.mkdir()
        frame = pl.DataFrame({"text": pl.Series(documents, dtype=pl.String)})
        frame.write_parquet(tmp_path / name / "text.parquet", row_group_size=7)
        inputs = {"shard": tmp_path / name, "tasks": root}
        out = tmp_path / f"{name}_out"
        metrics = find_overlap(config, inputs, out, Runtime(**runtime))
        return Overlap.read(out / FILE_NAME), read_left_out(out), metrics

    return run


def longest_program(tasks):
    """Return the number of a program that has words enough to be looked for."""
    rows = load_task(tasks, "humaneval", "test").rows
    return max(range(len(rows)), key=lambda i: len(rows[i]["prompt"] + rows[i]["canonical_solution"]))


def planted(tasks):
    """Return 20 documents of which two quote a word problem and one a program."""
    row = load_task(tasks, "gsm8k", "test").rows[3]
    problem = f"{row['question']}\n\n{row['answer']}"
    program = load_task(tasks, "humaneval", "test").rows[longest_program(tasks)]
    documents = [FILLER, None, "", *[FILLER] * 17]
    documents[5] = f"{FILLER}. {problem.upper()} {FILLER}"
    documents[12] = program["prompt"] + program["canonical_solution"]
    documents[19] = problem
    return documents


def test_long_documents_are_searched_in_pieces_with_the_same_result(search, tasks, monkeypatch):
    documents = planted(tasks)
    documents[5] = f"{FILLER} " * 50 + documents[5] + f" {FILLER}" * 50
    whole = search(documents, name="whole")
    monkeypatch.setattr(contamination, "_LONG_BYTES", 0)
    monkeypatch.setattr(ngrams, "_PIECE_BYTES", 300)
    monkeypatch.setattr(ngrams, "_SEAM_CHARACTERS", 150)
    assert search(documents, name="pieces") == whole
    assert whole[1] == {5, 12, 19}


def test_planted_items_are_found_with_their_documents(search, tasks):
    overlap, left_out, metrics = search(planted(tasks))
    assert left_out == {5, 12, 19}
    assert (overlap.documents, overlap.overlapping_documents, overlap.shards) == (20, 3, 1)
    assert 3 in overlap.tasks["gsm8k"].overlapping
    assert longest_program(tasks) in overlap.tasks["humaneval"].overlapping
    assert overlap.tasks["mmlu"].overlapping == ()
    every = [*overlap.tasks.values(), *overlap.core.values()]
    assert metrics == {
        "documents": 20,
        "overlapping_documents": 3,
        "items": sum(task.items for task in every),
        "judged_items": sum(task.judged for task in every),
        "overlapping_items": sum(len(task.overlapping) for task in every),
    }


def test_items_of_every_task_are_counted_and_short_ones_are_never_called_clean(search, tasks):
    overlap, left_out, _ = search([FILLER])
    assert left_out == frozenset()
    assert list(overlap.tasks) == list(CONFIG.chat_tasks)
    assert {name: task.items for name, task in overlap.tasks.items()} == dict.fromkeys(CONFIG.chat_tasks, 23)
    assert list(overlap.core) == [task.label for task in load_core(tasks, None)]
    sums = overlap.core["toy_sums"]  # "3 plus 4 is 7"
    assert (sums.items, sums.too_short, sums.judged, sums.part) == (81, 81, 0, None)
    assert overlap.tasks["gsm8k"].too_short == 0


def test_an_items_own_text_counts_and_not_what_prompts_put_around_it(tasks):
    chat, core = items_of_tasks(CONFIG, tasks)
    row = load_task(tasks, "arc_easy", "test").rows[2]
    assert chat["arc_easy"][2] == "\n".join([row["question"], *row["choices"]])
    by_label = {task.label: task.items[1] for task in load_core(tasks, None)}
    item = by_label["toy_who"]
    assert core["toy_who"][1] == "\n".join([*item["context_options"], item["continuation"]])
    item = by_label["toy_capitals"]
    assert core["toy_capitals"][1] == f"{item['context']}\n{item['continuation']}"


def test_without_core_only_the_named_tasks_are_looked_for(search, tasks):
    config = OverlapConfig(ngram_words=13, chat_tasks=("mmlu",), core=False)
    overlap, left_out, _ = search(planted(tasks), config)
    assert (list(overlap.tasks), overlap.core, left_out) == (["mmlu"], {}, frozenset())


def test_without_any_task_nothing_overlaps(search):
    overlap, left_out, metrics = search(
        [FILLER] * 3, OverlapConfig(ngram_words=13, chat_tasks=(), core=False)
    )
    assert (overlap.documents, left_out, metrics["items"]) == (3, frozenset(), 0)


@pytest.mark.parametrize("batch", [1, 3, 20])
def test_how_many_documents_are_read_at_once_changes_no_byte(search, tasks, tmp_path, monkeypatch, batch):
    search(planted(tasks))
    monkeypatch.setattr(contamination, "_BATCH_DOCUMENTS", batch)
    sizes = []
    original = contamination.GramIndex.find
    monkeypatch.setattr(
        contamination.GramIndex, "find", lambda self, texts: sizes.append(len(texts)) or original(self, texts)
    )
    search(planted(tasks), name="again")
    assert max(sizes) <= batch and sum(sizes) == 20
    for file in (FILE_NAME, "documents.npy"):
        assert (tmp_path / "shard_out" / file).read_bytes() == (tmp_path / "again_out" / file).read_bytes()


def test_a_stop_ends_the_search(search):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        search([FILLER], stop=stop)


def test_tasks_that_are_missing_or_have_no_answers_are_refused_as_by_evaluation(search, tasks, tmp_path):
    no_core = tmp_path / "no_core"
    write_tasks(ToyWorldConfig(questions=1, held_out=1), no_core)
    (no_core / "core" / "core.yaml").unlink()
    with pytest.raises(DataError, match=r"core\.yaml does not exist"):
        search([FILLER], root=no_core, name="a")
    conversations = OverlapConfig(ngram_words=13, chat_tasks=("test",), core=False)
    with pytest.raises(ConfigError, match="conversations without an answer"):
        search([FILLER], conversations, name="b")


def test_real_text_overlaps_with_few_items_and_those_are_really_in_it(shared_data, tmp_path):
    config = OverlapConfig(ngram_words=13, chat_tasks=("arc_easy", "mmlu", "gsm8k"), core=False)
    (tmp_path / "shard").mkdir()
    text = pl.read_parquet(shared_data / "pretrain" / "shard_00008.parquet")
    text.write_parquet(tmp_path / "shard" / "text.parquet")
    find_overlap(config, {"shard": tmp_path / "shard", "tasks": shared_data}, tmp_path, Runtime())
    overlap = json.loads((tmp_path / FILE_NAME).read_text())
    mmlu = overlap["tasks"]["mmlu"]
    assert 0 < len(mmlu["overlapping"]) < 0.01 * mmlu["items"]
    chat, _ = items_of_tasks(config, shared_data)

    def words(text):
        return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())

    whole = "\n".join(words(text["text"][i]) for i in read_left_out(tmp_path))
    for number in mmlu["overlapping"]:
        item = words(chat["mmlu"][number]).split()
        assert any(" ".join(item[i : i + 13]) in whole for i in range(len(item) - 12))


def test_of_rows_made_from_seeds_the_questions_are_looked_for(search, tmp_path):
    root = tmp_path / "listed"
    (root / "tasks").mkdir(parents=True)
    (root / "tasks" / "words.txt").write_text("strawberry\nrhythm\n")
    bee = load_task(root, "spelling_bee", "test")
    questions = [str(bee.conversation(i)[0]["content"]) for i in range(len(bee))]
    config = OverlapConfig(ngram_words=7, chat_tasks=("spelling_bee",), core=False)
    longest = max(range(len(bee)), key=lambda i: len(questions[i].split()))
    overlap, left_out, _ = search([FILLER, f"{FILLER}. {questions[longest]}"], config, root=root)
    assert left_out == {1}
    assert longest in overlap.tasks["spelling_bee"].overlapping
    assert overlap.tasks["spelling_bee"].items == 256
