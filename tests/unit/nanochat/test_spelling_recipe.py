"""The chat data of 2025-10-24 against the published numbers."""

from __future__ import annotations

import pytest

from nanochat import recipes
from nanochat.costs import forecast, mixture_rows
from nanochat.data.sources import resolve_tasks
from nanochat.data.task_files import require_tasks


def test_mixtures_are_d20s_with_the_published_rows_of_spelling():
    d20, found = recipes.find("d20"), recipes.find("d20-spelling")
    assert mixture_rows(found, found.midtrain.mixture) == 567_656 + 200_000 + 80_000
    assert mixture_rows(found, found.sft.mixture) == 20_843 + 300 + 300
    assert (found.midtrain.mixture[:3], found.sft.mixture[:4]) == (d20.midtrain.mixture, d20.sft.mixture)
    assert found.evaluate.chat_tasks == (*d20.evaluate.chat_tasks, "spelling_bee")
    assert found.pretrain == d20.pretrain


def test_midtraining_is_predicted_near_the_published_steps():
    # 1 %: upstream's sentences are others, and 2,000 rows about the model's identity were among its rows.
    assert forecast(recipes.find("d20-spelling")).of("midtrain").steps == pytest.approx(809, rel=0.01)


def test_its_source_has_what_it_names_and_that_of_d20_is_as_it_was():
    found = recipes.find("d20-spelling")
    source = resolve_tasks(found.tasks)
    for config in (found.midtrain, found.sft, found.evaluate):
        require_tasks(source, config)
    words = [file.version for file in source.files if file.path == "tasks/words.txt"]
    assert words == ["words_alpha.txt"]
    plain = resolve_tasks(recipes.find("d20").tasks)
    assert plain.files == source.files[:-1]
    assert "words_url" not in plain.identity()


def test_the_dial_turns_it_too():
    assert recipes.find("d20-spelling", ["depth=4"]).name == "d4-spelling"
