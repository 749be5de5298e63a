"""Whether a conversation from a file can be rendered and, if not, what is wrong with it, in words.

What would be left out of the rendering although it may change what a conversation means (tools, reasoning,
names of speakers) is wrong too. Knows neither files nor tokens: the caller adds the line, and the chat format
decides how it is rendered.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

FORM = (
    'a line is {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}, …]},'
    " or the list alone"
)
"""What a line of a conversation file looks like."""
PART_TYPES = ("text", "python", "python_output")
"""What an assistant's message can consist of."""
ROLES = ("system", "user", "assistant")
_ABOUT = (
    "id conversation_id prompt_id source dataset split category topic full_topic tags language license url"
    " title author model created_at date timestamp comment metadata"
)
METADATA = frozenset(_ABOUT.split())
"""What a line may have beside its messages: about the conversation, never rendered."""


def messages_of(row: Any) -> Any:
    """Return the messages of a line, if that is where it has them."""
    return row.get("messages") if isinstance(row, dict) else row if isinstance(row, list) else None


def wrong_in(row: Any) -> str | None:
    """Return what is wrong with a line, or None: then its messages are rendered, and nothing else matters."""
    if isinstance(row, dict) and messages_of(row) is not None:
        for key in _saying_something(row, METADATA | {"messages"}):
            return (
                f'{shown(key)} is not rendered; remove it, or move it into "metadata" if training can do'
                " without it"
            )
    if isinstance(row, dict) and row.get("messages") is None:
        return f"no messages; it has {', '.join(map(shown, list(row)[:5])) or 'nothing'}"
    return _wrong_messages(messages_of(row))


def _wrong_messages(messages: Any) -> str | None:
    if not isinstance(messages, list) or not messages:
        return "messages is not a list of messages" if messages is not None else "no messages"
    for place, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            return f"message {place} is {shown(message)}, which is not an object with role and content"
        if message.get("role") not in ROLES:
            return f"message {place}: role is {shown(message.get('role'))}, not {', '.join(ROLES)}"
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    wanted = ["user", "assistant"] * (len(turns) // 2 + 1)
    if len(turns) < 2 or turns != wanted[: len(turns)]:
        return f"roles {', '.join(roles)} do not alternate between user and assistant"
    for place, message in enumerate(messages, 1):
        if wrong := _wrong_message(message):
            return f"message {place}, {message['role']}: {wrong}"
    if all(message.get("weight") == 0 for message in messages if message["role"] == "assistant"):
        return "each answer has weight 0, which leaves nothing to train on"
    return None


def _wrong_message(message: dict[str, Any]) -> str | None:
    answers = message["role"] == "assistant"
    known = {"role", "content", "weight"} if answers else {"role", "content"}
    for key in _saying_something(message, known):
        return f"{shown(key)} is not rendered; remove it, or the conversation if it needs it"
    weight = message.get("weight")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        return f"weight is {shown(weight)}; it can be 0 (the answer is not trained on) or 1"
    return _wrong_content(message.get("content"), may_have_parts=answers)


def _saying_something(found: dict[str, Any], known: Set[str]) -> list[str]:
    """Return the other keys of an object whose values are not empty; a parquet file has empty ones."""
    return [key for key, value in found.items() if key not in known and value not in (None, "", [], {})]


def _wrong_content(content: Any, *, may_have_parts: bool) -> str | None:
    if isinstance(content, list) and may_have_parts:
        for part in content:
            if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
                return f"{shown(part)} is not a part of type {', '.join(PART_TYPES)}"
            for key in _saying_something(part, {"type", "text"}):
                return f"{shown(key)} of a part is not rendered; remove it"
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
