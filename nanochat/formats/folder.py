"""A published folder of either format: which of the two it is, and reading it.

The one entry for whoever is given a folder; the formats themselves are `nanochat_folder` and
`transformers_folder`.
"""

from __future__ import annotations

from pathlib import Path

from nanochat.errors import ConfigError, DataError
from nanochat.formats.nanochat_folder import find_nanochat, read_nanochat
from nanochat.formats.published import SOURCES, CheckpointFiles, Choice, Published
from nanochat.formats.transformers_folder import find_transformers, read_transformers


def find_published(folder: Path, choice: Choice | None = None) -> CheckpointFiles:
    """Return the files of the checkpoint that is meant.

    Raises:
        ConfigError: there is no such folder or checkpoint.
        DataError: the folder is in neither format, or incomplete.
    """
    choice = choice or Choice()
    if choice.source not in (None, *SOURCES):
        raise ConfigError(f"source is {choice.source!r}", hint=f"use {', '.join(SOURCES)}")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", hint="name the folder that holds the published model")
    if found := find_nanochat(folder, choice) or find_transformers(folder, choice):
        return found
    names = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
    raise DataError(
        f"{folder}: no model_<step>.pt here, in a tag folder or below chatsft_checkpoints/, and no"
        f" config.json of transformers; it holds {names}",
        hint="name a stage of the store, or a folder in nanochat's or transformers' published format",
    )


def read_published(found: CheckpointFiles) -> Published:
    """Return what the files hold; raise DataError naming the one that is missing, hostile or does not fit."""
    return read_nanochat(found) if found.format == "nanochat" else read_transformers(found)
