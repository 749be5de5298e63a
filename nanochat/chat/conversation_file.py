"""Conversations as files: one line of JSON in nanochat's own form, so that `tasks.own` reads it as well.

A file may come from anywhere; what is wrong with one is said with its name. What is done with its messages is
decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nanochat.data.chat.messages import FORM, messages_of, wrong_in
from nanochat.errors import DataError
from nanochat.tokenizer.chat_format import Message
from nanochat.writing import whole_file

LARGEST_BYTES: Final = 16 << 20
"""Far more than any context holds."""


def save_conversation(path: Path, messages: Sequence[Message], about: Mapping[str, Any]) -> None:
    """Write messages and what is known about them; raise OSError where that is impossible."""
    line = json.dumps({"messages": list(messages), "metadata": dict(about)}, ensure_ascii=False)
    with whole_file(path) as part:
        part.write_text(line + "\n", encoding="utf-8")


def load_conversation(path: Path) -> list[Message]:
    """Read the messages of a file; raise DataError where it is not one conversation, OSError without it."""
    size = path.stat().st_size
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    if size > LARGEST_BYTES:
        raise DataError(f"{path} has {size:,} bytes; at most {LARGEST_BYTES:,} are read")
    row = _row(path)
    if wrong := wrong_in(row):
        raise DataError(f"{path}: {wrong}", hint=FORM.replace("a line is", "a conversation is"))
    messages: list[Message] = messages_of(row)
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"{path}: the last message is from {messages[-1]['role']!r}, so its answer is missing",
            hint="remove it, and ask it once the rest is loaded",
        )
    return messages


def _row(path: Path) -> Any:
    try:
        text = path.read_text("utf-8-sig")
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) > 1 and _is_json(lines[0]):
            raise DataError(f"{path} has {len(lines):,} lines; a saved conversation has one")
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a saved conversation: {_short(error)}") from error


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _short(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start:,} is not UTF-8"
    return "brackets are nested too deeply" if isinstance(error, RecursionError) else f"not JSON: {error}"
