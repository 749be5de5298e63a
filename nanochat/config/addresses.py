"""Addresses in a configuration: refused with a password, token or signature in them.

A configuration is kept for good: in keys and records, and in the databases of Prefect and MLflow.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator

from nanochat.credentials import WAY_OUT, has_credentials, without_credentials

_Text = TypeVar("_Text", str, str | None)


def checked_address(text: _Text) -> _Text:
    """Return the address; raise ValueError, without naming them, if it carries credentials."""
    if text is not None and has_credentials(text):
        raise ValueError(
            f"{without_credentials(text)!r} came with a password, token or signature, which would be kept"
            f" with every result; {WAY_OUT}, or fetch the files and name their folder"
        )
    return text


Address = Annotated[str, AfterValidator(checked_address)]
OptionalAddress = Annotated[str | None, AfterValidator(checked_address)]
