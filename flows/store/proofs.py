"""Which local files are known to hold the bytes of their hash, so that large ones are not read at every use.

A file is known by device, inode, size and times: whoever writes to it changes these. A disk that loses bits
does not, so a proof is good for a day. Kept as lines of JSON that any number of processes append to; losing
them only costs the time to prove again. What is proven, and what becomes of a damaged file, is decided by
`flows.store.blobs`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

GOOD_FOR_S = 86400.0
_SETTLED_S = 2.0  # a file that has just changed may change again within one tick of the filesystem's clock
_LINES = 100_000  # more are thinned out when they are read


class Proofs:
    """What has been proven on this machine, kept in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._proven: dict[str, float] | None = None

    def known(self, found: os.stat_result, sha256: str) -> bool:
        """Return whether the file that looks like this was proven to have that hash."""
        with self._lock:
            if self._proven is None:
                self._proven = self._load()
            return 0 <= time.time() - self._proven.get(_line(found, sha256), 0.0) < GOOD_FOR_S

    def remember(self, found: os.stat_result, sha256: str) -> None:
        """Note that a file was proven; `found` is from before its bytes were read."""
        now = time.time()
        if now - max(found.st_mtime, found.st_ctime) < _SETTLED_S:
            return
        self._note(_line(found, sha256), now)

    def forget(self, found: os.stat_result, sha256: str) -> None:
        """Note that a file does not have that hash after all, although nobody has written to it."""
        self._note(_line(found, sha256), 0.0)

    def _note(self, line: str, when: float) -> None:
        with self._lock:
            if self._proven is not None:
                self._proven[line] = when
            with suppress(OSError):  # such as a home that is full or read-only
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a", encoding="ascii") as file:
                    file.write(json.dumps([line, when]) + "\n")

    def _load(self) -> dict[str, float]:
        proven: dict[str, float] = {}
        try:
            lines = self._file.read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):
            return proven
        oldest = time.time() - GOOD_FOR_S
        for text in lines:
            with suppress(ValueError, TypeError):  # a line that was cut off when its writer was killed
                line, when = json.loads(text)
                proven[str(line)] = float(when)
        proven = {line: when for line, when in proven.items() if when > oldest}
        if len(lines) > _LINES:
            self._thin(proven)
        return proven

    def _thin(self, proven: dict[str, float]) -> None:
        part = self._file.with_name(f"{self._file.name}.{os.getpid()}.part")
        with suppress(OSError):
            part.write_text("".join(json.dumps(pair) + "\n" for pair in proven.items()), encoding="ascii")
            part.replace(self._file)


def _line(found: os.stat_result, sha256: str) -> str:
    times = f"{found.st_mtime_ns}:{found.st_ctime_ns}"
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{times}:{sha256}"
