"""Read and check conversation files."""

from __future__ import annotations

from pathlib import Path

from nanochat.data.chat.tasks import load_conversations
from nanochat.errors import DataError


def check_conversations(path: Path, address: str) -> None:
    """Raise DataError naming the line, and the address that the file came from, if one cannot be rendered."""
    try:
        load_conversations(path)
    except DataError as error:
        raise DataError(str(error).replace(str(path), address), hint=error.hint) from error
