"""Whether a conversation from a file can be rendered and, if not, what is wrong with it, in words.

Knows neither files nor tokens: the caller adds the line, and the chat format decides how it is rendered.
"""

from __future__ import annotations

from typing import Any

FORM = (
    'a line is {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}, …]},'
    " or the list alone"
)
"""What a line of a conversation file looks like."""
PART_TYPES = ("text", "python", "python_output")
"""What an assistant's message can consist of."""


def wrong_in(messages: Any) -> str | None:
    """Return what is wrong with the messages of a conversation, or None: whatever passes can be rendered."""
    if not isinstance(messages, list) or not messages:
        return "messages is not a list of messages" if messages is not None else "no messages"
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    wanted = ["user", "assistant"] * (len(turns) // 2 + 1)
    if len(turns) < 2 or turns != wanted[: len(turns)]:
        return f"roles {', '.join(map(str, roles))} do not alternate between user and assistant"
    for place, message in enumerate(messages, 1):
        if wrong := _wrong_content(message.get("content"), may_have_parts=message["role"] == "assistant"):
            return f"message {place}, {message['role']}: {wrong}"
    return None


def _wrong_content(content: Any, *, may_have_parts: bool) -> str | None:
    if isinstance(content, list) and may_have_parts:
        for part in content:
            if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
                return f"{shown(part)} is not a part of type {', '.join(PART_TYPES)}"
            if wrong := _wrong_text(part.get("text")):
                return wrong
        return None
    return _wrong_text(content)


def _wrong_text(text: Any) -> str | None:
    if not isinstance(text, str):
        return "no content" if text is None else f"content is {shown(text)}, which is not text"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair at character {error.start}, which is not a character"
    return None


def shown(value: object) -> str:
    """Return a value as it is written, cut short."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
