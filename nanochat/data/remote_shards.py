"""Token shards that stay where they are: offsets in memory, tokens read by range when a batch needs them.

For corpora that are larger than the local disk, or runs that shall not wait for a copy. The store's own way,
copying a stage's inputs before it starts, costs less where the disk has room: documents are shuffled, so
every one of them is a request of its own here. Ranges of a batch are asked for side by side; wrap the batches
in `nanochat.data.prefetch` to hide what is left of the latency. Offsets are proven by their hash; tokens
cannot be, read in parts, apart from their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nanochat.data.batches import Piece
from nanochat.data.token_shards import HEADER_BYTES, Header, Tokens
from nanochat.data.transfer import filesystem_of, patience, source_error, unreadable


@dataclass(frozen=True)
class RemoteShard:
    """What is known of a shard without its tokens."""

    url: str
    path: str
    header: Header
    doc_offsets: npt.NDArray[np.uint64]

    @property
    def digest(self) -> str:
        """Digest of the vocabulary."""
        return self.header.digest


class RemoteShards:
    """Shards of one file system, opened together; give `shards` and `read` to `PretrainBatches`."""

    def __init__(
        self,
        urls: Sequence[str],
        digest: str | None = None,
        *,
        connections: int = 32,
        check_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Read header and offsets of each URL of a `tokens.bin`, in the given order.

        Raises DataError for what is no shard, or one of another vocabulary than `digest`.
        """
        self._filesystem, _ = filesystem_of(urls[0], connections)
        self._connections = connections
        self._retry = patience(1.0, check_stop)
        paths = [self._filesystem._strip_protocol(url) for url in urls]
        sizes = [
            self._ask(url, self._filesystem.info, path)["size"] for url, path in zip(urls, paths, strict=True)
        ]
        raw = self._ranges(urls, paths, [0] * len(paths), [HEADER_BYTES] * len(paths))
        headers = [Header.unpack(*each) for each in zip(raw, sizes, urls, strict=True)]
        for header, url in zip(headers, urls, strict=True):
            header.require_vocabulary(digest, url)
        offsets = self._ranges(urls, paths, [header.offsets_start for header in headers], sizes)
        self.shards = [
            RemoteShard(url, path, header, header.checked_offsets(part, url))
            for url, path, header, part in zip(urls, paths, headers, offsets, strict=True)
        ]

    def read(self, pieces: Sequence[Piece]) -> list[Tokens]:
        """Return the tokens of pieces, asking for all of them at once."""
        shards = [self.shards[piece.shard] for piece in pieces]
        widths = [shard.header.dtype.itemsize for shard in shards]
        begins = [HEADER_BYTES + w * piece.begin for w, piece in zip(widths, pieces, strict=True)]
        ends = [HEADER_BYTES + w * piece.stop for w, piece in zip(widths, pieces, strict=True)]
        raw = self._ranges([s.url for s in shards], [s.path for s in shards], begins, ends)
        return [np.frombuffer(part, shard.header.dtype) for part, shard in zip(raw, shards, strict=True)]

    def _ranges(
        self, urls: Sequence[str], paths: list[str], begins: list[int], ends: list[int]
    ) -> list[bytes]:
        def ask() -> list[bytes]:
            options: dict[str, Any] = {"batch_size": self._connections} if self._filesystem.async_impl else {}
            found = self._filesystem.cat_ranges(paths, begins, ends, on_error="raise", **options)
            for path, part, begin, end in zip(paths, found, begins, ends, strict=True):
                if len(part) != end - begin:
                    raise OSError(f"{path}: got {len(part)} bytes for bytes {begin} to {end}")
            return list(found)

        found: list[bytes] = self._ask(urls[0], ask)
        return found

    def _ask(self, url: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._retry(function, *arguments)
        except unreadable() as error:
            raise source_error(url, error) from error
