"""What a chat stage validates on: rows of its own, or the last part of its mixture."""

from __future__ import annotations

from nanochat.config import MixtureEntry, SftConfig
from nanochat.train.chat import chat_data

TALK = (MixtureEntry(task="talk"),)


def test_a_named_validation_set_leaves_the_mixture_whole(stage_inputs):
    config = SftConfig(mixture=TALK, validation=(MixtureEntry(task="talk", rows=7),))
    training, validation = chat_data(stage_inputs / "tasks", config)
    assert (len(training), len(validation)) == (60, 7)


def test_without_one_the_last_rows_validate_and_do_not_train(stage_inputs):
    whole, _ = chat_data(stage_inputs / "tasks", SftConfig(mixture=TALK, validation=TALK))
    training, validation = chat_data(stage_inputs / "tasks", SftConfig(mixture=TALK))
    assert [*training, *validation] == list(whole)
    assert len(validation) == 1
