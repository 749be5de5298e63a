"""What models are asked when they are scored again, and what the records of others may hold."""

from __future__ import annotations

import dataclasses
import re

import pytest

from flows.models.import_export import export_model
from flows.models.recorded import recorded_scores
from flows.models.score import beside, find_examinee, questions
from flows.models.scored import comparison, examples, task_lines
from flows.store import Store
from flows.store.fingerprint import fingerprint
from nanochat.errors import ConfigError, DataError, StoreError
from nanochat.evals.intervals import share
from nanochat.evals.shown_items import Prompts
from nanochat.formats.published import Choice
from tests.unit.flows.conftest import CONFIG


@pytest.fixture(scope="module")
def folder(small_store, tmp_path_factory):
    """Export the chat model as a published folder."""
    target = tmp_path_factory.mktemp("published") / "out"
    export_model(small_store.store, "sft", target, form="nanochat", layout="flat", choice=Choice())
    return str(target)


@pytest.fixture(scope="module")
def both(small_store):
    """Score the chat model and the base model on the same items."""
    examinees = [find_examinee(small_store.store, ref) for ref in ("sft", "pretrain")]
    with questions(small_store.store, examinees[0], tasks=("mmlu", "core")) as asked:
        yield [asked.score(examinee) for examinee in examinees]


def test_a_model_is_asked_what_its_own_evaluation_asks(small_store):
    examinee = find_examinee(small_store.store, "sft")
    with questions(small_store.store, examinee) as asked:
        scores = asked.score(examinee)
    lines = task_lines(scores)
    assert {name: line.items for name, line in lines.items()} == {"mmlu": 9, "gsm8k": 3, "arc_easy": 12}
    for name, line in lines.items():
        right = sum(result.right[0] for result in scores.items[name])
        assert line.accuracy == share(right / line.items, line.items)
        assert line.seconds > 0
    assert scores.results["metrics"]["val_bpb"] > 0 and scores.results["core"] == {}


def test_code_runs_without_a_jail_only_where_it_is_allowed_again(small_store):
    examinee = find_examinee(small_store.store, "sft")
    with questions(small_store.store, examinee, tasks=("mmlu",), allow_unsafe_code=True) as asked:
        assert asked.config.allow_unsafe_code
    with questions(small_store.store, examinee, tasks=("mmlu",)) as asked:
        assert not asked.config.allow_unsafe_code


def test_only_what_is_asked_for_is_asked(small_store, both):
    assert list(task_lines(both[0])) == ["mmlu", "core_arc_easy"]
    assert both[0].results["metrics"].get("val_bpb") is None
    examinee = find_examinee(small_store.store, "sft")
    with questions(small_store.store, examinee, tasks=("val_bpb", "mmlu", "core"), limit=2) as asked:
        scores = asked.score(examinee)
    assert {name: line.items for name, line in task_lines(scores).items()} == {"mmlu": 2, "core_arc_easy": 2}
    assert scores.results["metrics"]["val_bpb"] > 0


def test_a_published_folder_is_scored_as_the_model_that_it_holds(small_store, folder):
    examinees = [find_examinee(small_store.store, ref) for ref in ("sft", folder)]
    for first in examinees:
        with questions(small_store.store, first, tasks=("gsm8k", "val_bpb")) as asked:
            ours, theirs = (asked.score(examinee) for examinee in examinees)
        assert (ours.results, ours.items) == (theirs.results, theirs.items)
        tasks, metrics = comparison(ours, theirs)
        assert tasks["gsm8k"].difference.p == 1.0 and metrics["val_bpb"].value == 0.0


def test_what_an_evaluation_has_kept_is_what_asking_again_gives(small_store):
    examinee = find_examinee(small_store.store, "sft")
    with questions(small_store.store, examinee) as asked:
        again, kept = asked.score(examinee), recorded_scores(asked, examinee)
    assert (kept.results, kept.items) == (again.results, again.items)
    with questions(small_store.store, examinee, tasks=("mmlu",)) as asked:
        kept = recorded_scores(asked, examinee)
    assert kept.items == {"mmlu": again.items["mmlu"]} and kept.results["metrics"] == {}
    assert kept.results["tasks"] == {"mmlu": again.results["tasks"]["mmlu"]}


@pytest.mark.parametrize(
    ("ref", "options", "message"),
    [
        ("sft", {"limit": 2}, "evaluate_sft/[0-9a-f]{12} asked with max_problems None, not 2"),
        ("sft", {"tasks": ("core",)}, "evaluate_sft/[0-9a-f]{12} has kept no items of core"),
        ("pretrain", {}, "no evaluation of pretrain is in"),
    ],
)
def test_what_an_evaluation_did_not_ask_is_not_taken_from_it(small_store, ref, options, message):
    examinee = find_examinee(small_store.store, "sft")
    with (
        questions(small_store.store, examinee, **options) as asked,
        pytest.raises(StoreError, match=message) as caught,
    ):
        recorded_scores(asked, find_examinee(small_store.store, ref))
    assert "leave out --recorded" in caught.value.hint


def test_a_line_for_each_subject_adds_up_to_the_task(both):
    line = task_lines(both[0])["mmlu"]
    assert {name: group.items for name, group in line.groups.items()} == {"subject 0": 5, "subject 1": 4}
    right = sum(group.accuracy.value * group.items for group in line.groups.values())
    assert right == pytest.approx(line.accuracy.value * line.items)


def test_two_models_are_compared_item_by_item(both):
    tasks, metrics = comparison(*both)
    for name in ("mmlu", "core_arc_easy"):
        verdicts = [{result.item: result.right[0] for result in scores.items[name]} for scores in both]
        gained = [item for item, right in verdicts[0].items() if right and not verdicts[1][item]]
        assert sorted(tasks[name].gained) == sorted(gained)
        difference = (sum(verdicts[0].values()) - sum(verdicts[1].values())) / len(verdicts[0])
        assert tasks[name].difference.estimate.value == pytest.approx(difference)
    core = metrics["core_of_arc_easy_6_each"]
    assert core.value == pytest.approx(tasks["core_arc_easy"].difference.estimate.value / 0.5)
    assert core.interval.low < core.value < core.interval.high


def test_two_models_of_one_name_are_shown_beside_each_other(small_store, both):
    names = [both[0].examinee, beside(both[0].examinee, dataclasses.replace(both[1].examinee, name="sft"))]
    scores = [dataclasses.replace(s, examinee=examinee) for s, examinee in zip(both, names, strict=True)]
    with questions(small_store.store, names[0], tasks=("mmlu", "core")) as asked:
        shown = examples(asked, scores, "flips", 100)
    tasks, _ = comparison(*both)
    assert len(shown) == sum(task.difference.better + task.difference.worse for task in tasks.values()) > 0
    assert {tuple(example.answers) for example in shown} == {("sft", "sft (2)")}


def test_an_item_is_shown_with_the_prompt_that_was_asked_and_no_other(small_store, both):
    prompts = Prompts(small_store.root / "tasks", both[0].tokenizer, CONFIG)
    first, second = both[0].items["mmlu"][:2]
    assert prompts.shown("mmlu", first).prompt.startswith(
        f"Multiple Choice question: What about {first.item}?"
    )
    with pytest.raises(DataError, match=f"mmlu, item {second.item}: the problem is not the one"):
        prompts.shown("mmlu", dataclasses.replace(second, prompt_sha256=first.prompt_sha256))
    for result in both[0].items["core_arc_easy"]:  # shuffled, and not all that the file has
        shown = prompts.shown("core_arc_easy", result)
        assert shown.prompt.endswith(f"so {result.item} ")
        assert shown.options == ("a", "the") and shown.gold == ("a", "the")[int(result.gold)]


@pytest.mark.parametrize(
    ("tasks", "message", "hint"),
    [
        (("mmlu", "mmul"), "there is no task 'mmul'", "tasks: arc_easy, .*, core, val_bpb"),
        (
            ("humaneval",),
            "tasks/[0-9a-f]{12} has no problems of humaneval",
            "it has arc_easy, mmlu, gsm8k, core",
        ),
    ],
)
def test_tasks_that_are_not_there_are_answered_with_those_that_are(small_store, tasks, message, hint):
    examinee = find_examinee(small_store.store, "sft")
    with (
        pytest.raises(ConfigError, match=message) as caught,
        questions(small_store.store, examinee, tasks=tasks),
    ):
        pass
    assert re.search(hint, caught.value.hint)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (None, StoreError, "evaluate_base/[0-9a-f]{12} does not say what it was made with"),
        ({"max_problems": "many"}, ConfigError, "max_problems is 'many', not a whole number"),
    ],
)
def test_settings_of_an_evaluation_that_are_none_are_named(tmp_path, config, error, message):
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "made").mkdir()
    (tmp_path / "made/file").write_text("content")

    def commit(stage, **inputs):
        lines = {
            name: {"stage": r.stage, "key": r.key, "digest": r.digest, "node": r.node}
            for name, r in inputs.items()
        }
        payload = {"stage": stage, "config": config}
        return store.commit(
            stage=stage,
            node=stage,
            key=fingerprint(payload),
            payload=payload,
            folder=tmp_path / "made",
            inputs=lines,
        )

    tokens = commit("tokenize", shard=commit("download"))
    commit("evaluate_base", val_tokens=tokens, tasks=commit("tasks"))
    commit("import")
    with pytest.raises(error, match=message), questions(store, find_examinee(store, "import")):
        pass
