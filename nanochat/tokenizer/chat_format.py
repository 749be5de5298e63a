"""How a conversation becomes tokens, and which of them an assistant is trained on.

A conversation starts with `bos`; each message is wrapped in the start and end tokens of its role. A
leading system message is put before the first user message. This module knows nothing of data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

from nanochat.errors import DataError
from nanochat.tokenizer.tokenizer import Tokenizer


class Part(TypedDict):
    """A piece of an assistant's message: text, a call of the calculator, or what it returned."""

    type: Literal["text", "python", "python_output"]
    text: str


class Message(TypedDict):
    """One message; only an assistant's content may be a list of parts."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]
    name: NotRequired[str]
    weight: NotRequired[int | None]  # of an answer: 0, it is not trained on, or 1


Conversation = list[Message]

LONGEST = 2048
"""Tokens of a conversation that are trained on, or asked."""
_WRAPPERS = {"python": ("python_start", "python_end"), "python_output": ("output_start", "output_end")}


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    max_tokens: int | None = LONGEST,
    *,
    every_token: bool = False,
) -> tuple[list[int], list[int]]:
    """Return token ids and a mask that is 1 where the assistant is trained; both cut to `max_tokens`.

    With `every_token` the mask is 1 everywhere but in answers of weight 0, which are never trained on. Raises
    `DataError` where roles do not alternate from user on, or content has the wrong form.
    """
    given = int(every_token)  # of tokens that are not the assistant's
    ids = [tokenizer.special("bos")]
    mask = [given]

    def add(tokens: list[int], trained: int) -> None:
        ids.extend(tokens)
        mask.extend([trained] * len(tokens))

    for message in merge_system(messages):
        role, content = message["role"], message["content"]
        add([tokenizer.special(f"{role}_start")], given)
        if role == "user":
            add(tokenizer.encode(str(content)), given)
            add([tokenizer.special("user_end")], given)
            continue
        trained = message.get("weight") != 0
        parts: list[Part] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            # What the tool returned is given, not predicted.
            is_target = trained and (every_token or part["type"] != "python_output")
            add(_part_tokens(tokenizer, part), int(is_target))
        add([tokenizer.special("assistant_end")], int(trained))
    return ids[:max_tokens], mask[:max_tokens]


def render_for_completion(
    tokenizer: Tokenizer, messages: Sequence[Message], max_tokens: int | None = LONGEST
) -> list[int]:
    """Return the prompt for the assistant's next answer; a last assistant message is left out.

    What is before the answer is cut to `max_tokens`, as training and upstream's evaluations cut it.
    """
    asked = list(messages)
    if asked and asked[-1]["role"] == "assistant":
        asked.pop()
    ids, _ = render(tokenizer, asked, max_tokens)
    return [*ids, tokenizer.special("assistant_start")]


def _part_tokens(tokenizer: Tokenizer, part: Part) -> list[int]:
    text = tokenizer.encode(part["text"])
    if part["type"] == "text":
        return text
    if part["type"] not in _WRAPPERS:
        raise DataError(f"part type is {part['type']!r}; it must be text, python or python_output")
    start, end = (tokenizer.special(name) for name in _WRAPPERS[part["type"]])
    return [start, *text, end]


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with a leading system message put before the first of the user."""
    merged = list(messages)
    if merged and merged[0]["role"] == "system":
        if len(merged) < 2 or merged[1]["role"] != "user":
            raise DataError("a system message must be followed by a user message")
        content = f"{merged[0]['content']}\n\n{merged[1]['content']}"
        merged[:2] = [{"role": "user", "content": content}]
    for index, message in enumerate(merged):
        expected = "assistant" if index % 2 else "user"
        if message["role"] != expected:
            raise DataError(
                f"message {index} is from {message['role']!r}; roles must alternate, so {expected!r}"
            )
        if expected == "user" and not isinstance(message["content"], str):
            raise DataError(f"message {index} of the user is not a string")
    return merged
