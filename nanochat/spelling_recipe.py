"""What joined upstream's chat data on 2025-10-24: the spelling tasks, added to a recipe of before.

The rows about the model's identity that joined with them are a user's own (`tasks.own`). How rows are made is
`nanochat.data.spelling`.
"""

from __future__ import annotations

from nanochat.config import MixtureEntry, Recipe

WORDS = "https://raw.githubusercontent.com/dwyl/english-words/refs/heads/master/words_alpha.txt"
_TASKS = ("spelling", "spelling_bee")
_SFT_ROWS = 300  # of each; midtraining has all


def with_spelling(base: Recipe) -> Recipe:
    """Return the recipe with the spelling tasks in midtraining, SFT and ChatCORE."""
    midtrain = (*base.midtrain.mixture, *(MixtureEntry(task=task) for task in _TASKS))
    sft = (*base.sft.mixture, *(MixtureEntry(task=task, rows=_SFT_ROWS) for task in _TASKS))
    asked = (*base.evaluate.chat_tasks, "spelling_bee")
    changes = {
        "name": f"{base.name}-spelling",
        "tasks": base.tasks.model_copy(update={"words_url": WORDS}),
        "midtrain": base.midtrain.model_copy(update={"mixture": midtrain}),
        "sft": base.sft.model_copy(update={"mixture": sft}),
        "evaluate": base.evaluate.model_copy(update={"chat_tasks": asked}),
        "publish": base.publish.model_copy(update={"title": f"{base.publish.title} with spelling"}),
    }
    return base.model_copy(update=changes)
