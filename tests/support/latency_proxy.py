"""A TCP proxy in a process of its own that lets every request arrive late, as over a long line."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit


@contextmanager
def slow_line(endpoint: str, latency_s: float) -> Iterator[str]:
    """Yield an address that leads to `endpoint`, where each request arrives `latency_s` late."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(endpoint, latency_s, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


def _run(endpoint: str, latency_s: float, told: Connection[Any, Any]) -> None:
    target = urlsplit(endpoint)

    async def forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter, wait_s: float) -> None:
        try:
            while data := await source.read(1 << 16):
                await asyncio.sleep(wait_s)
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(forward(reader, back, latency_s), forward(there, writer, 0.0))

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())
