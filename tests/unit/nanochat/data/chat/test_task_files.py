"""A recipe's data sets against those of its source, before anything is downloaded."""

from __future__ import annotations

import pytest

from nanochat.config import (
    EvaluateConfig,
    MidtrainConfig,
    MixtureEntry,
    OverlapConfig,
    SftConfig,
    SourceFile,
    TasksConfig,
    ToyWorldConfig,
)
from nanochat.data.chat.task_files import TOY_CONVERSATIONS
from nanochat.data.chat.task_table import TASKS
from nanochat.data.sources.chat_data import resolve_tasks
from nanochat.data.sources.required import require_core, require_tasks
from nanochat.data.toy_world.files import write_tasks
from nanochat.errors import ConfigError

TOY = resolve_tasks(TasksConfig())
HUB = resolve_tasks(TasksConfig(source="hub", toy=None))
FOLDER = TasksConfig(
    source="folder",
    toy=None,
    files=tuple(SourceFile(path=p) for p in ("tasks/gsm8k/train.parquet", "conversations/mine.jsonl")),
)


def refused(source, config):
    with pytest.raises(ConfigError) as caught:
        require_tasks(source, config)
    return str(caught.value), caught.value.hint


def test_what_a_source_has_is_accepted():
    for source in (TOY, HUB):
        require_tasks(source, EvaluateConfig())
        require_core(source)
    mixture = (MixtureEntry(task="gsm8k"), MixtureEntry(task="mine"))
    require_tasks(FOLDER, SftConfig(mixture=mixture, validation=mixture))


def test_a_data_set_that_the_source_lacks_is_named_with_the_nearest():
    said = refused(TOY, SftConfig(mixture=(MixtureEntry(task="smoltalk"),)))
    assert said == (
        "sft.mixture names 'smoltalk', but tasks.source toy has no conversations/smoltalk.jsonl",
        "did you mean smalltalk?",
    )
    said = refused(FOLDER, MidtrainConfig(validation=(MixtureEntry(task="gsm8k", split="test"),)))
    assert said == (
        "midtrain.validation names 'gsm8k', but tasks.source folder has no tasks/gsm8k/test.jsonl",
        "known: mine",
    )


@pytest.mark.parametrize(
    "config",
    [
        EvaluateConfig(chat_tasks=("humanevil",)),
        OverlapConfig(ngram_words=13, chat_tasks=("humanevil",), core=False),
    ],
)
def test_a_task_to_evaluate_must_have_answers(config):
    message, hint = refused(HUB, config)
    assert (message, hint) == (
        "evaluate.chat_tasks names 'humanevil', which is not a task with answers to score",
        "did you mean humaneval?",
    )


def test_a_split_that_a_task_has_not_is_refused():
    message, hint = refused(HUB, SftConfig(mixture=(MixtureEntry(task="gsm8k", split="dev"),)))
    assert (message, hint) == ("task gsm8k has no split 'dev'", "its splits are train, test")
    message, hint = refused(HUB, SftConfig(mixture=(MixtureEntry(task="smoltalk", split="test"),)))
    assert "the task 'test'" in hint


def test_spelling_needs_a_list_of_words():
    mixture = (MixtureEntry(task="spelling"), MixtureEntry(task="spelling_bee", split="test"))
    for source in (TOY, HUB, FOLDER):
        message, hint = refused(source, SftConfig(mixture=mixture))
        assert message.endswith("has no tasks/words.txt")
        assert "tasks.words_url" in hint
    listed = FOLDER.model_copy(update={"files": (SourceFile(path="tasks/words.txt"),)})
    require_tasks(listed, SftConfig(mixture=mixture))
    require_tasks(listed, EvaluateConfig(chat_tasks=("spelling_bee",)))
    message, _ = refused(listed, EvaluateConfig(chat_tasks=("spelling",)))
    assert "not a task with answers" in message


def test_identity_needs_a_file_of_conversations():
    config = SftConfig(mixture=(MixtureEntry(task="identity"),))
    for source in (TOY, HUB, FOLDER):
        message, hint = refused(source, config)
        assert message.endswith("has no conversations/identity.jsonl")
        assert "tasks.identity_url" in hint
    require_tasks(
        FOLDER.model_copy(update={"files": (SourceFile(path="conversations/identity.jsonl"),)}), config
    )


def test_a_missing_core_bundle_is_told_before_training():
    with pytest.raises(ConfigError, match=r"evaluate\.core is true, but tasks\.source folder") as caught:
        require_core(FOLDER)
    assert "evaluate.core=false" in caught.value.hint


def test_the_toy_world_writes_what_is_said_of_it(tmp_path):
    write_tasks(ToyWorldConfig(documents_per_shard=1, questions=2, held_out=2), tmp_path)
    written = {str(p.relative_to(tmp_path).with_suffix("")) for p in tmp_path.rglob("*.*")}
    places = {split.place for task in TASKS.values() if task.toy for split in task.splits.values()}
    places |= {f"conversations/{name}" for name in TOY_CONVERSATIONS}
    assert {w for w in written if not w.startswith("core/")} == places
