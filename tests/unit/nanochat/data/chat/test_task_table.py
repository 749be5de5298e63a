"""A chat task is declared in one place, and few files have to know its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanochat.data.chat.task_table import TASKS
from nanochat.data.chat.tasks import load_task
from nanochat.data.toy_world import questions
from nanochat.errors import DataError
from tests.support.naming import files_naming

ROOT = Path(__file__).parents[5]
MOST_FILES = 8  # presets name tasks as data, and are counted


@pytest.mark.parametrize("name", [name for name in TASKS if name != "spelling"])  # also a plain word
def test_few_files_name_a_task(name):
    found = files_naming(name, ROOT, ("flows", "nanochat"))
    assert 1 <= len(found) <= MOST_FILES, found


def test_presets_apart_a_task_is_named_where_it_and_its_data_set_are_and_in_the_default_evaluation():
    found = [path for path in files_naming("gsm8k", ROOT, ("flows", "nanochat")) if "recipes/" not in path]
    declared = ["nanochat/config/public_data.py", "nanochat/data/chat/task_table.py"]
    published = "nanochat/publish/published_scores.py"  # what others measured
    assert sorted(found) == sorted([*declared, "nanochat/config/recipe.py", published])


@pytest.mark.parametrize("name", TASKS)
def test_rows_of_every_declared_form_can_be_read(name, tmp_path):
    for split, part in TASKS[name].splits.items():
        with pytest.raises(DataError, match=part.place):
            load_task(tmp_path, name, split)


def test_a_task_with_choices_asks_the_toy_world_what_it_has_questions_about():
    choices = [task for task in TASKS.values() if task.form.endswith("choices")]
    assert {subject for task in choices for subject in task.toy} == set(questions.CHOICE_SUBJECTS)
