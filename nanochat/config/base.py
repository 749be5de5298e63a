"""The base of all configuration, and checks that several parts share.

A configuration is kept for good, in keys and records and in the databases of Prefect and MLflow, so no text
of it may carry a password, token or signature.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

from nanochat.credentials import WAY_OUT, has_credentials, without_credentials


class Config(BaseModel):
    """Base of all configuration: frozen, no unknown fields, field docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # an address may have been given with a password
        protected_namespaces=(),
    )
    location_fields: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*")
    @classmethod
    def _without_credentials(cls, value: Any) -> Any:
        """Refuse an address with a password, without naming that."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and has_credentials(text):
                raise ValueError(
                    f"{without_credentials(text)!r} came with a password, token or signature, which would be"
                    f" kept with every result; {WAY_OUT}, or fetch the files and name their folder"
                )
        return value

    def identity(self) -> dict[str, Any]:
        """Return what is hashed: every field, at any depth, except those that only say where bytes are."""
        names = [name for name in type(self).model_fields if name not in self.location_fields]
        return {name: _identity(getattr(self, name)) for name in names}


def _identity(value: Any) -> Any:
    if isinstance(value, Config):
        return value.identity()
    return [_identity(item) for item in value] if isinstance(value, tuple) else value


def require_whole_rows(name: str, batch_tokens: int, sequence_len: int) -> None:
    """Raise ValueError unless the batch is whole rows; `name` is the field that holds it."""
    if batch_tokens % sequence_len:
        raise ValueError(
            f"{name} is {batch_tokens}, not a multiple of model.sequence_len ({sequence_len});"
            f" use {multiples(batch_tokens, sequence_len)}"
        )


def multiples(value: int, of: int) -> str:
    """Name the multiples on either side of a value, for hints."""
    below, above = value // of * of, (value // of + 1) * of
    return f"{below} or {above}" if below else str(above)
