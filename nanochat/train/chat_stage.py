"""What midtraining and SFT begin with: a trained model, its tokenizer, and rendered conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nanochat.chat import samples
from nanochat.chat.engine import Engine
from nanochat.data.chat.chat_tokens import ChatTokens
from nanochat.data.text.token_shards import vocabulary_digest
from nanochat.model.checkpoint import load_model
from nanochat.model.device import device_of
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer
from nanochat.train.hooks import SAMPLE_TOKENS
from nanochat.train.validation import require_vocabulary


@dataclass(frozen=True, kw_only=True)
class ChatStage:
    """The inputs of a stage that trains on conversations, opened."""

    tokenizer: Tokenizer
    model: GPT
    training: ChatTokens
    validation: ChatTokens

    @classmethod
    def open(cls, inputs: Mapping[str, Path], runtime: Runtime) -> ChatStage:
        """Read `inputs`: tokenizer, model, chat (the rendered conversations)."""
        tokenizer = Tokenizer.load(inputs["tokenizer"])
        model = load_model(inputs["model"], device_of(runtime.device))
        require_vocabulary(tokenizer, model.config)
        digest = vocabulary_digest(tokenizer)
        training, validation = (ChatTokens.open(inputs["chat"] / part, digest) for part in ("train", "val"))
        return cls(tokenizer=tokenizer, model=model, training=training, validation=validation)

    def answer(self, prompt: str) -> str:
        """Return the greedy answer to one user message."""
        return samples.reply(Engine(self.model, self.tokenizer), prompt, SAMPLE_TOKENS)
