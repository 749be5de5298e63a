"""lm-evaluation-harness scores our models on our tasks: the same answers, and each difference explained."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import torch

# First: it keeps the harness's libraries off the network.
from tests.parity.harness_differences import Asked, Compared, compared, table  # isort: skip

import datasets
import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_results_filenames, make_table

from nanochat.chat.engine import Engine
from nanochat.config import ModelConfig
from nanochat.data.chat.answers import Problem
from nanochat.data.chat.tasks import ChatTask, choice_prompt
from nanochat.errors import ConfigError, DataError
from nanochat.evals import choice
from nanochat.evals.core import score as core
from nanochat.evals.core.bundle import CoreTask
from nanochat.formats.nanochat_folder import write_nanochat_folder
from nanochat.formats.published import Published
from nanochat.harness.adapter import HarnessModel
from nanochat.harness.chat_text import chat_text
from nanochat.harness.result_files import write_results
from nanochat.harness.task_folder import chat_task, core_task, write_tasks
from nanochat.model.gpt import GPT
from nanochat.tokenizer.chat_format import render_for_completion
from nanochat.tokenizer.tokenizer import Tokenizer

_NOUNS = ("river", "sea", "the old stone bridge", "boat", "a", "tree by the water", "stone", "fish")
ITEMS = 16


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    former = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = str(tmp_path_factory.mktemp("cache"))
    yield
    datasets.config.HF_DATASETS_CACHE = former


@pytest.fixture(scope="module")
def published() -> Published:
    pairs = {b" a": 256, b" the": 257, b"er": 258, b"in": 259, b" s": 260}
    tokenizer = Tokenizer.from_ranks({bytes([b]): b for b in range(256)} | pairs)
    config = ModelConfig(
        sequence_len=32, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_kv_head=2, n_embd=32
    )
    model = GPT(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.3, generator=generator))
    return Published(model=model.eval(), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def folder(published: Published, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("published")
    config, state = published.model.config, published.model.state_dict()
    write_nanochat_folder(out, state=state, config=config, tokenizer=published.tokenizer, step=1, results={})
    return out


def _core_task(kind: str, shots: int, delimiter: str = " ") -> CoreTask:
    items = []
    for i in range(ITEMS):
        nouns = [_NOUNS[(i + k) % len(_NOUNS)] for k in range(3)]
        if kind == "multiple_choice":
            items.append({"query": f"Where is it? {i}", "choices": nouns, "gold": i % 3})
        elif kind == "schema":
            contexts = [f"The {noun} is {i} because it" for noun in nouns]
            items.append({"context_options": contexts, "continuation": "sank in the sea.", "gold": i % 3})
        else:
            items.append({"context": f"So {nouns[0]}, and", "continuation": nouns[1]})
    return CoreTask(
        label=kind,
        kind=kind,
        delimiter=delimiter,
        shots=shots,
        baseline=0.3,
        items=items,
        numbers=range(100, 100 + ITEMS),
    )


def _chat_task() -> ChatTask:
    rows = [(f"Which is {i}?", "ABCD"[: 3 + i % 2], "ABC"[i % 3]) for i in range(ITEMS)]
    return ChatTask(
        "letters",
        "choice",
        0.25,
        rows,
        lambda row: [
            {"role": "user", "content": choice_prompt(row[0], row[1], _NOUNS[: len(row[1])])},
            {"role": "assistant", "content": row[2]},
        ],
        lambda row: Problem(letters=tuple(row[1]), answer=row[2]),
    )


def _all(batches):
    return [result for batch in batches for result in batch]


@pytest.fixture(scope="module")
def found(published: Published, folder: Path, tmp_path_factory) -> list[Compared]:
    model, tokenizer = published.model, published.tokenizer
    letters = _chat_task()
    asked = [
        Asked(
            task=chat_task(letters, range(ITEMS)),
            ours=_all(choice.answered(model, tokenizer, letters, range(ITEMS))),
        )
    ]
    for task in (_core_task("multiple_choice", 2, "\nAnswer: "), _core_task("multiple_choice", 0)):
        ours = _all(core.answered(model, tokenizer, task))
        named = replace(core_task(task), name=f"nanochat_core_{task.shots}_shots")
        asked.append(Asked(task=named, ours=ours))
    return compared(folder, published, asked, tmp_path_factory.mktemp("tasks"))


def test_under_our_rule_the_harness_gives_our_answer_on_every_item(found):
    assert len(found) == 3 * ITEMS
    assert all(item.agrees for item in found), table(found)
    assert len({item.ours for item in found}) > 2  # not one answer to all
    assert not any(_wrong_answer(item).agrees for item in found)


def _wrong_answer(item):
    return replace(item, ours=min(range(len(item.our_scores)), key=item.our_scores.__getitem__))


def test_every_answer_that_differs_under_its_own_rules_follows_from_our_scores(found):
    assert all(item.explained(rule) for item in found for rule in ("acc", "acc_norm")), table(found)
    differs = [item for item in found if max(item.sums) != item.sums[item.ours]]
    assert differs and not any("letters" in item.task for item in differs)


@pytest.mark.parametrize("kind", ["schema", "language_modeling"])
def test_the_other_kinds_of_core_tasks_are_judged_alike(kind, published, folder, tmp_path):
    task = _core_task(kind, 1)
    write_tasks(tmp_path, [core_task(task)])
    done = lm_eval.simple_evaluate(
        model="nanochat",
        model_args={"pretrained": str(folder), "score": "mean"},
        tasks=["nanochat"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    (samples,) = done["samples"].values()
    theirs = {sample["doc"]["item"]: bool(sample["acc"]) for sample in samples}
    ours = _all(core.answered(published.model, published.tokenizer, task))
    assert theirs == {result.item: result.right[0] for result in ours}
    if kind == "schema":
        scores = {sample["doc"]["item"]: [s for s, _ in sample["filtered_resps"]] for sample in samples}
        assert all(scores[r.item] == pytest.approx(r.loglikelihoods, abs=1e-4) for r in ours)


def test_the_harness_shows_our_results_as_its_own(published, tmp_path):
    task = _core_task("multiple_choice", 1)
    ours = _all(core.answered(published.model, published.tokenizer, task))
    asked = core_task(task)
    time = datetime(2026, 1, 2, 3, 4, 5)
    write_results(tmp_path, [asked], {asked.name: ours}, model="d2", time=time)
    results = tmp_path / "results_2026-01-02T03-04-05.json"
    assert get_results_filenames([str(path) for path in tmp_path.iterdir()]) == [str(results)]
    (row,) = [
        line.split("|")
        for line in make_table(json.loads(results.read_text(encoding="utf-8"))).splitlines()
        if asked.name in line
    ]
    right = [result.right[0] for result in ours]
    error = statistics.stdev(map(float, right)) / len(right) ** 0.5
    cells = [cell.strip() for cell in row]
    assert cells[5] == "acc"
    assert [float(cells[7]), float(cells[9])] == pytest.approx([sum(right) / len(right), error], abs=5e-5)
    samples = tmp_path / f"samples_{asked.name}_2026-01-02T03-04-05.jsonl"
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    assert [line["doc"]["item"] for line in lines] == [result.item for result in sorted(ours, key=_item)]
    first = next(result for result in ours if result.item == 100)
    assert [float(score) for score, _ in lines[0]["filtered_resps"]] == list(first.loglikelihoods)


def _item(result):
    return result.item


@pytest.fixture(scope="module")
def adapter(folder: Path) -> HarnessModel:
    return HarnessModel(str(folder))


def _request(kind, *args):
    return Instance(request_type=kind, doc={}, arguments=args, idx=0, metadata=("t", 0, 1))


def test_a_rolled_text_has_the_loss_of_its_windows(adapter, published):
    bos, text = published.tokenizer.special("bos"), "the river runs to the sea"
    ids = published.tokenizer.encode(text)
    assert len(ids) < published.model.config.sequence_len
    with torch.no_grad():
        loss = published.model(torch.tensor([[bos, *ids[:-1]]]), torch.tensor([ids]), loss_reduction="sum")
    short, long = adapter.loglikelihood_rolling(
        [_request("loglikelihood_rolling", text), _request("loglikelihood_rolling", text * 9)]
    )
    assert short == pytest.approx(-float(loss), rel=1e-5)
    assert long < 4 * short


def test_texts_are_written_by_the_engine_up_to_where_they_are_to_stop(adapter, published):
    engine, bos = Engine(published.model, published.tokenizer), published.tokenizer.special("bos")
    prompt = published.tokenizer.encode("the river")
    whole = published.tokenizer.decode(list(engine.generate([bos, *prompt], max_new_tokens=9)))
    stop = whole[3:5]
    asked = {"max_gen_toks": 9, "do_sample": False, "temperature": 0.0}
    texts = adapter.generate_until(
        [
            _request("generate_until", "the river", {**asked, "until": []}),
            _request("generate_until", "the river", {**asked, "until": [stop]}),
        ]
    )
    assert texts == [whole, whole.partition(stop)[0]]
    with pytest.raises(ConfigError, match="top_p is not known"):
        adapter.generate_until([_request("generate_until", "x", {"top_p": 0.9})])


def test_a_conversation_is_the_same_tokens_as_text(adapter, published):
    talk = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello?\n"},
        {"role": "assistant", "content": "Hi "},
        {"role": "user", "content": " the sea " * 900},
    ]
    text = adapter.apply_chat_template(talk)
    expected = render_for_completion(published.tokenizer, talk)
    assert len(expected) == 2049 and adapter.tok_encode(text) == expected
    ordinary = "so <|bos|> is written"
    bos = published.tokenizer.special("bos")
    assert adapter.tok_encode(ordinary) == [bos, *published.tokenizer.encode(ordinary)]
    with pytest.raises(DataError, match=r"the user holds <\|user_end\|>, the name of a special token"):
        chat_text([{"role": "user", "content": "a<|user_end|>b"}])


def test_a_score_that_there_is_not_is_an_error_with_those_there_are(folder):
    with pytest.raises(ConfigError, match="score is 'median'") as raised:
        HarnessModel(str(folder), score="median")
    assert "use sum" in str(raised.value.hint)
