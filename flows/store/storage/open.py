"""Which storage a URL means: the only file that knows them all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec.core

from flows.store.storage.base import Storage
from flows.store.storage.retry import Retry
from nanochat.errors import StoreError


def open_storage(url: str, options: Mapping[str, Any], retry: Retry) -> Storage:
    """Return the storage at `url`: a folder path or any fsspec URL."""
    if url.startswith(("s3://", "s3a://")):
        from flows.store.storage.s3 import S3Storage

        return S3Storage.at(url, options, retry)
    from flows.store.storage.local import LocalStorage

    try:
        fs, root = fsspec.core.url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise StoreError(
            f"{url}: {error}", hint="use a folder, s3://bucket/prefix or another fsspec URL"
        ) from error
    if "file" in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol):
        folder = str(Path(root).absolute())
        local = LocalStorage(folder, fs, folder, retry)
        local.check()
        return local
    if "http" in fs.protocol:  # it takes no files, and lists none where a server does not answer
        raise StoreError(
            f"{url}: a web server cannot hold a store",
            hint="use a folder, s3://bucket/prefix or another fsspec URL",
        )
    storage = Storage(url, fs, root, retry)
    if "memory" in fs.protocol:  # one process, and its open files share one position
        storage.shared, storage.workers = False, 1
    return storage
