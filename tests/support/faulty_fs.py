"""An fsspec filesystem that fails on purpose: `faulty:///some/folder`, seeded, for fault injection.

A share of all calls times out, raises an I/O error before or after the work is done, or reads short. Register
it with `register()`; the share and the seed come from the storage options `rate` and `seed`, or from the
variables FAULTY_RATE and FAULTY_SEED where a test starts processes.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class FaultyFileSystem(fsspec.AbstractFileSystem):
    """A local folder behind a bad connection."""

    protocol = "faulty"
    cachable = False

    def __init__(self, rate: float | None = None, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.rate = float(os.environ.get("FAULTY_RATE", "0.1")) if rate is None else rate
        self.random = random.Random(int(os.environ.get("FAULTY_SEED", "0")) if seed is None else seed)
        self.faults = 0
        self.inner = LocalFileSystem()
        self._guard = threading.Lock()

    def _fault(self) -> str | None:
        with self._guard:
            if self.random.random() >= self.rate:
                return None
            self.faults += 1
            return self.random.choice(["timeout", "before", "after", "short"])

    def _call(self, operation: Callable[[], Any], shorten: Callable[[Any], Any] | None = None) -> Any:
        fault = self._fault()
        if fault == "timeout":
            raise TimeoutError("injected timeout")
        if fault == "before" or (fault == "short" and shorten is None):
            raise OSError(errno.EIO, "injected I/O error")
        result = operation()
        if fault == "after":
            raise ConnectionResetError("injected: the answer was lost")
        return shorten(result) if fault == "short" and shorten else result

    def _cut(self, size: int) -> int:
        return self.random.randrange(size) if size else 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("faulty://").rstrip("/")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return self._call(
            lambda: self.inner.cat_file(path, start, end), lambda data: data[: self._cut(len(data))]
        )

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        def put() -> None:
            part = Path(f"{path}.{uuid.uuid4().hex}.part")
            part.write_bytes(value)
            try:
                os.link(part, path) if mode == "create" else shutil.copyfile(part, path)
            finally:
                part.unlink()

        self._call(put)

    def get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        def shorten(_: Any) -> None:
            os.truncate(lpath, self._cut(Path(lpath).stat().st_size))

        self._call(lambda: self.inner.get_file(rpath, lpath), shorten)

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        def shorten(_: Any) -> None:
            os.truncate(rpath, self._cut(Path(rpath).stat().st_size))

        self._call(lambda: self.inner.put_file(lpath, rpath), shorten)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return self._call(lambda: self.inner.info(path))

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return self._call(lambda: self.inner.find(path, *args, **kwargs))

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        self._call(lambda: Path(path1).replace(path2))

    def rm_file(self, path: str) -> None:
        self._call(lambda: self.inner.rm_file(path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._call(lambda: self.inner.makedirs(path, exist_ok=exist_ok))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return self._call(lambda: self.inner.open(path, mode))


def register() -> None:
    """Make `faulty://` URLs known to fsspec."""
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
