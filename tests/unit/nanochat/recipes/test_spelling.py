"""The chat data of 2025-10-24 against the published numbers."""

from __future__ import annotations

import pytest

from nanochat import recipes
from nanochat.costs.forecast import forecast, mixture_rows
from nanochat.data.sources.chat_data import resolve_tasks
from nanochat.data.sources.required import require_tasks


def test_mixtures_are_d20s_with_the_published_rows_of_identity_and_spelling():
    d20, found = recipes.find("d20"), recipes.find("d20-spelling")
    assert mixture_rows(found, found.midtrain.mixture) == 567_656 + 2 * 996 + 200_000 + 80_000
    assert mixture_rows(found, found.sft.mixture) == 22_439  # published, as are its 701 steps
    assert (found.midtrain.mixture[:3], found.sft.mixture[:4]) == (d20.midtrain.mixture, d20.sft.mixture)
    assert found.evaluate.chat_tasks == (*d20.evaluate.chat_tasks, "spelling_bee")
    assert found.pretrain == d20.pretrain


def test_how_many_rows_an_identity_of_your_own_has_is_not_known():
    found = recipes.find("d20-spelling", ["tasks.identity_url=https://host/mine.jsonl"])
    assert mixture_rows(found, found.sft.mixture) is None
    assert forecast(found).of("midtrain").steps is None


def test_midtraining_is_predicted_near_the_published_steps():
    # 1 %: upstream's spelling sentences are others, and the identity rows' length is assumed.
    found = forecast(recipes.find("d20-spelling"))
    assert found.of("midtrain").steps == pytest.approx(809, rel=0.01)
    assert found.of("sft").steps == 701


def test_its_source_has_what_it_names_and_that_of_d20_is_as_it_was():
    found = recipes.find("d20-spelling")
    source = resolve_tasks(found.tasks)
    for config in (found.midtrain, found.sft, found.evaluate):
        require_tasks(source, config)
    plain = resolve_tasks(recipes.find("d20").tasks)
    joined = {file.path: file.version for file in source.files[len(plain.files) :]}
    assert joined == {
        "tasks/words.txt": "words_alpha.txt",
        "conversations/identity.jsonl": "identity_conversations.jsonl",
    }
    assert plain.files == source.files[: len(plain.files)]
    assert not {"words_url", "identity_url"} & plain.identity().keys()


def test_the_dial_turns_it_too():
    assert recipes.find("d20-spelling", ["depth=4"]).name == "d4-spelling"
