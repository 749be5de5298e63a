"""The published model as a folder of links into the store, replaced only where nothing in it is a user's.

Which model, and what is said about it, is decided by the verb `run`.
"""

from __future__ import annotations

import re
from pathlib import Path

from flows.store import Record, Store
from nanochat.errors import ConfigError

_BLOB = re.compile(r".*/blobs/([0-9a-f]{2})/\1[0-9a-f]{62}")


def unpack(store: Store, record: Record, folder: Path) -> Path:
    """Fill a folder with links to an artifact and its attachments, replacing links from an earlier run.

    Raises ConfigError as `require_ours` does, before anything is changed.
    """
    require_ours(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.rglob("*"):
        if old.is_symlink():
            old.unlink()
    return store.fetch(record, folder, attachments=True)


def require_ours(folder: Path) -> None:
    """Raise ConfigError naming the first entry of a folder that is not a link of an earlier run."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder} is not a folder of a run, but a link or file", hint=_WAY_OUT)
    for path in sorted(folder.rglob("*")):  # of a folder that does not exist: nothing
        ours = _BLOB.fullmatch(str(path.readlink())) if path.is_symlink() else path.is_dir()
        if not ours:
            raise ConfigError(f"{path} was not put there by a run, so {folder} is left alone", hint=_WAY_OUT)


_WAY_OUT = "move it elsewhere, or keep the model under another name: -o name=NAME"
