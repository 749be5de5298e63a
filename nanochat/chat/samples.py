"""Texts that show what a model has learned: what it writes after fixed prompts, greedily, as chat shows it.

Training shows them while it runs, evaluation keeps them with its results. They go through the engine, so that
a calculation has its result, and reads as it does in chat. Not here: which prompts, when, and where to.
"""

from __future__ import annotations

from collections.abc import Sequence

from nanochat.chat.engine import Engine, stream_text
from nanochat.tokenizer.chat_format import render_for_completion


def continuation(engine: Engine, prompt: str, max_new_tokens: int) -> str:
    """Return how the model goes on with a text."""
    tokenizer = engine.tokenizer
    return _written(engine, [tokenizer.special("bos"), *tokenizer.encode(prompt)], max_new_tokens)


def reply(engine: Engine, prompt: str, max_new_tokens: int) -> str:
    """Return what the model replies to one user message."""
    ids = render_for_completion(engine.tokenizer, [{"role": "user", "content": prompt}])
    return _written(engine, ids, max_new_tokens)


def _written(engine: Engine, ids: Sequence[int], max_new_tokens: int) -> str:
    tokens = engine.generate(ids, max_new_tokens=max_new_tokens)
    return "".join(stream_text(engine.tokenizer, tokens))
