"""What a server is set to: where it listens, who may ask, how much one request may ask for.

Read once, never changed. What one request asks for is in `nanochat.serve.chat_request` and its neighbours.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Final

from nanochat.errors import ConfigError

KEY_VARIABLE: Final = "NANOCHAT_API_KEY"
_SHORTEST_KEY: Final = 12  # what `nanochat.credentials` hides in all that is printed
_MAKE_KEY: Final = 'python -c "import secrets; print(secrets.token_urlsafe())"'


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """How much one request may ask for: upstream's limits, and a few that it lacks."""

    messages: int = 500
    message_chars: int = 8_000
    """Of a message that a person wrote; an answer may be longer, or it could not be sent back."""
    total_chars: int = 32_000
    temperature: float = 2.0
    top_k: int = 200
    max_tokens: int = 4_096
    choices: int = 8
    """Answers to one request, over all its prompts."""
    body_bytes: int = 1_048_576  # 32,000 characters, each escaped as two halves of a surrogate pair: 384,000
    body_s: float = 30.0
    """In which a request must have come in."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How one server runs."""

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = field(default=None, repr=False)
    allow_origins: tuple[str, ...] = ()
    """Pages of these origins may use the server from a browser; `*`: all."""
    rows: int = 8
    """Answers that one engine writes together."""
    queue: int = 64
    """Answers that may wait for a place; further ones are refused."""
    timeout_s: float = 600.0
    """After this long an answer ends as it is."""
    grace_s: float = 30.0
    """How long running answers may take to finish once the server is asked to end."""
    limits: RequestLimits = RequestLimits()

    def __post_init__(self) -> None:
        """Refuse a server that anybody on the network could use, and a key that is easily guessed."""
        if self.key is None and not is_loopback(self.host):
            raise ConfigError(
                f"--host is {self.host}, which other machines can reach, and there is no key",
                hint=f"set {KEY_VARIABLE} to a secret ({_MAKE_KEY}), or use --host 127.0.0.1",
            )
        if self.key is not None and (
            len(self.key) < _SHORTEST_KEY
            or not (self.key.isascii() and self.key.isprintable())
            or " " in self.key
        ):
            raise ConfigError(
                f"the key has {len(self.key)} characters, or some that a header cannot carry;"
                f" it must have at least {_SHORTEST_KEY} letters, digits and signs",
                hint=f"make one: {_MAKE_KEY}",
            )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
