"""A stage is declared in one place: its function is there, and few files have to know its name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from flows.stages import EVALUATIONS, IMPORT, STAGES, TRAINED
from nanochat.recipes import small
from tests.support.naming import files_naming

ROOT = Path(__file__).parents[3]
MOST_FILES = 8
# Names that mean nothing else in the code; `tokenize`, `publish` and the like are also plain words.
TELLING = ("pretrain", "midtrain", "sft", "render", "contamination", *(s.name for s in EVALUATIONS.values()))
MORE_FILES = {
    "pretrain": 10,  # three presets set its section, two errors name the field to set
    "midtrain": 9,  # four presets set its section
    "render": 9,  # also the function that makes tokens of a conversation
    "sft": 10,  # four presets set its section, and upstream's checkpoint folders have this name as well
}


@pytest.mark.parametrize("name", [*STAGES, IMPORT.name])
def test_the_function_of_each_stage_is_there(name):
    module, _, function = (STAGES | {IMPORT.name: IMPORT})[name].run.partition(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("name", TELLING)
def test_few_files_name_a_stage(name):
    found = files_naming(name, ROOT, ("flows", "nanochat"))
    assert 1 <= len(found) <= MORE_FILES.get(name, MOST_FILES), found


def test_the_recipes_training_sections_are_the_stages_that_train():
    assert list(small.toy().training) == list(TRAINED)
    assert all(stage.title and stage.evaluated_by for stage in TRAINED.values())
