"""Which conversations a chat stage trains on, and which it validates on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nanochat.config import MidtrainConfig, SftConfig
from nanochat.data.tasks import mixture
from nanochat.tokenizer.chat_format import Conversation
from nanochat.train.validation import held_out


def chat_data(
    root: Path, config: MidtrainConfig | SftConfig
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """Load those that train, and those that validate: a mixture of their own, or the training one's end."""
    training = mixture(root, config.mixture, config.seed)
    if config.validation:
        return training, mixture(root, config.validation, config.seed)
    return held_out(training)
