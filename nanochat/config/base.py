"""The base of all configuration, and checks that several parts share. Imports nothing of ours."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of all configuration: frozen, no unknown fields, field docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )
    location_fields: ClassVar[frozenset[str]] = frozenset()

    def identity(self) -> dict[str, Any]:
        """Return what is hashed: every field but those that only say where bytes are.

        A field that a stage got later has an `exclude_if` for the value that stands for what the stage did
        before: keys made earlier stay valid.
        """
        return self.model_dump(mode="json", exclude=set(self.location_fields))


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


def is_empty(value: object) -> bool:
    """Say whether a field has the value that stands for what a stage did before it got the field."""
    return not value
