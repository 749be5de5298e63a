"""Prompts in chat format as text, which is what the harness passes on: written, and made tokens again.

Special tokens are written by name, such as `<|user_start|>`. Text that starts with `<|bos|>` is a rendered
conversation; all other text is ordinary, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nanochat.errors import DataError
from nanochat.tokenizer.chat_format import LONGEST, Message, merge_system
from nanochat.tokenizer.tokenizer import SPECIAL_NAMES, Tokenizer, special_text

_SPECIAL = re.compile("|".join(re.escape(special_text(name)) for name in SPECIAL_NAMES))
_BOS = special_text("bos")


def chat_text(messages: Sequence[Message]) -> str:
    """Return the prompt for the assistant's next answer; a last assistant message is left out.

    Raises DataError for messages that hold the name of a special token, which would be taken for it.
    """
    asked = list(messages)
    if asked and asked[-1]["role"] == "assistant":
        asked.pop()
    written = [_BOS, *(_message_text(message) for message in merge_system(asked))]
    return "".join((*written, special_text("assistant_start")))


def is_chat(text: str) -> bool:
    """Return whether a text is a rendered conversation."""
    return text.startswith(_BOS)


def chat_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a rendered conversation; what is before the answer is cut as training cuts it."""
    question, start, answer = text.rpartition(special_text("assistant_start"))
    tokens, end = list[int](), 0
    for special in _SPECIAL.finditer(question):
        tokens += tokenizer.encode(question[end : special.start()])
        tokens.append(tokenizer.special_tokens[special.group()])
        end = special.end()
    tokens += tokenizer.encode(question[end:])
    return [*tokens[:LONGEST], tokenizer.special_tokens[start], *tokenizer.encode(answer)]


def _message_text(message: Message) -> str:
    role, content = message["role"], message["content"]
    if not isinstance(content, str):
        raise DataError(f"a message of the {role} is in parts; in a prompt of the harness it is text")
    if found := _SPECIAL.search(content):
        raise DataError(f"a message of the {role} holds {found.group()}, the name of a special token")
    return f"{special_text(f'{role}_start')}{content}{special_text(f'{role}_end')}"
