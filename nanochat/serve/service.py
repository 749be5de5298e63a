"""What all routes of a server share: settings, the model once it is loaded, whether requests are taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nanochat.serve.api_errors import ApiError
from nanochat.serve.engine_thread import CallSoon, EngineThread
from nanochat.serve.job_desk import JobDesk
from nanochat.serve.serve_metrics import ServeMetrics
from nanochat.serve.serve_settings import ServeSettings
from nanochat.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from nanochat.chat.engine import Engine

MakeEngine = Callable[[], "Engine"]
State = Literal["loading", "ready", "stopping"]


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What a request needs to know of the model."""

    id: str
    tokenizer: Tokenizer
    context_tokens: int
    devices: tuple[str, ...]
    """Of each engine."""
    created: int = field(default_factory=lambda: int(time.time()))


class Service:
    """The state of one server; used on the event loop's thread."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.desk = JobDesk(rows=settings.rows, queue=settings.queue)
        self.metrics = ServeMetrics(self.desk)
        self.state: State = "loading"
        self._model: ServedModel | None = None
        self._threads: list[EngineThread] = []
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def healthy(self) -> bool:
        """Return whether a request would be answered."""
        return self.state == "ready" and bool(self.desk.loads)

    @property
    def model(self) -> ServedModel:
        """Return the model; raise ApiError while there is none, and when the server is about to end."""
        if self.state == "stopping":
            raise ApiError(
                503, "the server is about to end", code="stopping", headers={"connection": "close"}
            )
        if self._model is None or self.state == "loading":
            raise ApiError(503, "the model is being loaded", code="loading", headers={"retry-after": "2"})
        return self._model

    def start(self, model_id: str, engines: Sequence[tuple[str, MakeEngine]], call_soon: CallSoon) -> None:
        """Start a thread for each engine, given by its device and how it is made; called on any thread."""
        threads = [
            EngineThread(number, make, self.desk, call_soon) for number, (_, make) in enumerate(engines)
        ]
        engine = threads[0].engine
        self._model = ServedModel(
            id=model_id,
            tokenizer=engine.tokenizer,
            context_tokens=engine.context_tokens,
            devices=tuple(device for device, _ in engines),
        )
        for thread in threads:
            thread.start()
        self._threads = threads
        self.metrics.watch_caches(lambda: [t.engine.cache for t in threads if t.engine.cache is not None])

    def open(self) -> bool:
        """Take requests, once the model is there; return False where the server is about to end."""
        if self.state == "loading":
            self.state = "ready"
        return self.state == "ready"

    @contextmanager
    def request_open(self) -> Iterator[None]:
        """Count a request as being answered while the block runs."""
        self._open += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def finish(self, grace_s: float) -> None:
        """Take no more requests, and wait until those that are open are answered or the time is over."""
        self.state = "stopping"
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        """End the engines' threads."""
        self.desk.close()

    def wait(self, timeout_s: float) -> bool:
        """Return whether all threads have ended, each at the latest after `timeout_s`."""
        return all(thread.wait(timeout_s) for thread in self._threads)
