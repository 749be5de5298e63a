"""How one answer is written: how its tokens are drawn, and where it ends. Not part of any stage or key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_STOPS: Final = 16


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one answer is drawn; the defaults are those of a chat."""

    temperature: float = 0.6
    """0 takes the likeliest token."""
    top_k: int | None = 50
    """Draw among this many tokens; None: among all."""
    top_p: float = 1.0
    """Draw among the fewest tokens that together have this probability."""
    min_p: float = 0.0
    """Leave out tokens less likely than this share of the likeliest."""
    repetition_penalty: float = 1.0
    """Logits of tokens already in the text are divided by this, or multiplied if negative (Keskar 2019)."""
    max_new_tokens: int = 256
    seed: int = 42
    stop: tuple[str, ...] = ()
    """The answer ends before any of these."""
    logprobs: int | None = None
    """Record the log-probability of each token and of this many likeliest ones (0: of the token alone)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn with; raise ValueError with the value and the limit."""
        checks = {
            "temperature": (0 <= self.temperature < float("inf"), "must be 0 (greedy) or more"),
            "top_k": (self.top_k is None or self.top_k >= 1, "must be at least 1"),
            "top_p": (0 < self.top_p <= 1, "must be above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "must be from 0 to 1"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "must be above 0"),
            "max_new_tokens": (self.max_new_tokens >= 1, "must be at least 1"),
            "seed": (-(2**63) <= self.seed < 2**64, "must have at most 64 bits"),
            "stop": (
                len(self.stop) <= MAX_STOPS and all(self.stop),
                f"must be at most {MAX_STOPS} strings, none of them empty",
            ),
            "logprobs": (self.logprobs is None or self.logprobs >= 0, "must be 0 or more"),
        }
        for name, (holds, limit) in checks.items():
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it {limit}")
