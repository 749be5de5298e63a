"""How a chat draws its answers unless it is asked otherwise: part of no stage and of no key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How answers are drawn."""

    temperature: float = 0.6
    top_k: int | None = 50
    max_new_tokens: int = 256
    seed: int = 42
