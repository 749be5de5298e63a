"""The published model as a folder of links into the store, replaced only where nothing in it is a user's.

Which model, and what is said about it, is decided by the verb `run`.
"""

from __future__ import annotations

import re
from pathlib import Path

from flows.store import Record, Store
from flows.store.records import blob_name
from nanochat.errors import ConfigError
from nanochat.file_digest import sha256_of

_BLOB = re.compile(r".*/blobs/([0-9a-f]{2})/\1[0-9a-f]{62}")


def unpack(store: Store, record: Record, folder: Path) -> Path:
    """Fill a folder with links to an artifact and its attachments, replacing links from an earlier run.

    Raises ConfigError as `require_ours` does, before anything is changed.
    """
    require_ours(store, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.rglob("*"):
        if not old.is_dir() or old.is_symlink():
            old.unlink()
    return store.fetch(record, folder, attachments=True)


def require_ours(store: Store, folder: Path) -> None:
    """Raise ConfigError naming the first entry of a folder that an earlier run has not put there.

    Its entries are links to blobs, or after a copy of the whole home files with the bytes of blobs.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder} is not a folder of a run, but a link or file", hint=_WAY_OUT)
    for path in sorted(folder.rglob("*")):  # of a folder that does not exist: nothing
        if not (_is_link_to_a_blob(path) if path.is_symlink() else path.is_dir() or _is_kept(store, path)):
            raise ConfigError(f"{path} was not put there by a run, so {folder} is left alone", hint=_WAY_OUT)


def _is_link_to_a_blob(link: Path) -> bool:
    return _BLOB.fullmatch(str(link.readlink())) is not None


def _is_kept(store: Store, path: Path) -> bool:
    """Return whether the store has the bytes of a file, so that nothing is lost without it."""
    if not path.is_file():
        return False
    found = store.storage.found(blob_name(sha256_of(path)))
    return found is not None and found.size == path.stat().st_size


_WAY_OUT = "move it elsewhere, or keep the model under another name: -o name=NAME"
