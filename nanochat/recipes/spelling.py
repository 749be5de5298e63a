"""What joined upstream's chat data by 2025-10-24: conversations about the model's identity, and spelling.

Only which rows, added to an earlier recipe. How spelling rows are made is `nanochat.data.chat.spelling`.
"""

from __future__ import annotations

from nanochat.config import MixtureEntry, Recipe

WORDS = "https://raw.githubusercontent.com/dwyl/english-words/refs/heads/master/words_alpha.txt"
IDENTITY = "https://karpathy-public.s3.us-west-2.amazonaws.com/identity_conversations.jsonl"
IDENTITY_ROWS = 996  # of the 22,439 that published fine-tuning had, what no other data set accounts for
_SFT_ROWS = 300  # of each spelling task; midtraining has all


def with_spelling(base: Recipe) -> Recipe:
    """Return the recipe with identity and spelling in midtraining and SFT, and spelling in ChatCORE."""
    midtrain = (*base.midtrain.mixture, *_joining(rows=None, identity_epochs=2))
    sft = (*base.sft.mixture, *_joining(rows=_SFT_ROWS, identity_epochs=1))
    asked = (*base.evaluate.chat_tasks, "spelling_bee")
    changes = {
        "name": f"{base.name}-spelling",
        "tasks": base.tasks.model_copy(update={"words_url": WORDS, "identity_url": IDENTITY}),
        "midtrain": base.midtrain.model_copy(update={"mixture": midtrain}),
        "sft": base.sft.model_copy(update={"mixture": sft}),
        "evaluate": base.evaluate.model_copy(update={"chat_tasks": asked}),
        "publish": base.publish.model_copy(
            update={"title": f"{base.publish.title} with identity and spelling"}
        ),
    }
    return base.model_copy(update=changes)


def _joining(*, rows: int | None, identity_epochs: int) -> tuple[MixtureEntry, ...]:
    """Return the entries in upstream's order, which takes these rows as they come."""
    return (
        MixtureEntry(task="identity", repeat=identity_epochs, shuffle=False),
        MixtureEntry(task="spelling", rows=rows, shuffle=False),
        MixtureEntry(task="spelling_bee", rows=rows, shuffle=False),
    )
