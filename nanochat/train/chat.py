"""What midtraining and SFT begin with: a trained model, its tokenizer, and a mixture of conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanochat.config import MidtrainConfig, SftConfig
from nanochat.data.tasks import mixture
from nanochat.model.checkpoint import load_model
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime
from nanochat.tokenizer.chat_format import Conversation
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.train.run import device_of
from nanochat.train.validation import chat_answer, held_out, require_vocabulary


@dataclass(frozen=True, kw_only=True)
class ChatStage:
    """The inputs of a stage that trains on conversations, opened."""

    tokenizer: Tokenizer
    model: GPT
    conversations: Sequence[Conversation]
    validation: Sequence[Conversation]

    @classmethod
    def open(
        cls, config: MidtrainConfig | SftConfig, inputs: Mapping[str, Path], runtime: Runtime
    ) -> ChatStage:
        """Read `inputs`: tokenizer, model, tasks (the chat data)."""
        tokenizer = Tokenizer.load(inputs["tokenizer"])
        model = load_model(inputs["model"], device_of(runtime))
        require_vocabulary(tokenizer, model.config)
        conversations, validation = chat_data(inputs["tasks"], config)
        return cls(tokenizer=tokenizer, model=model, conversations=conversations, validation=validation)

    def answer(self, prompt: str) -> str:
        """Return the greedy answer to one user message."""
        return chat_answer(self.model, self.tokenizer, prompt)


def chat_data(
    root: Path, config: MidtrainConfig | SftConfig
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """Load those that train, and those that validate: a mixture of their own, or the training one's end."""
    training = mixture(root, config.mixture, config.seed)
    if config.validation:
        return training, mixture(root, config.validation, config.seed)
    return held_out(training)
