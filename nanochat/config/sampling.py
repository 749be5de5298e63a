"""How a chat samples its answers by default; not part of any stage or key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How answers are sampled."""

    temperature: float = 0.6
    top_k: int | None = 50
    max_new_tokens: int = 256
    seed: int = 42
