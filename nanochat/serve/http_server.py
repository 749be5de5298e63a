"""Runs a service over HTTP: the socket opens at once, the model is loaded meanwhile, signals end it in order.

At the first SIGTERM or SIGINT no more requests are taken (503) and those that run are finished; at the
second, or after the grace time, the server ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from nanochat.errors import ConfigError
from nanochat.serve.serve_settings import ServeSettings
from nanochat.serve.service import MakeEngine, Service
from nanochat.serve.web_app import create_app
from nanochat.serve.web_page import PageFile

Load = Callable[[], tuple[str, Sequence[tuple[str, MakeEngine]]]]
"""Returns the model's name, and each engine as its device and how it is made."""
_STALLED_S: Final = 30.0  # who takes or says nothing for this long is cut off
_CONNECTIONS: Final = 1024
_LEAVE_S: Final = 5.0  # for connections and threads to end once all is answered


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise ConfigError where the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise ConfigError(
            f"{host}, port {port} cannot be listened on: {os.strerror(error.errno or 0)}"
            if isinstance(error.errno, int) and error.errno > 0
            else f"{host}, port {port} cannot be listened on: {error}",
            hint="name another port with --port; 0 takes a free one",
        ) from None


def address_of(listening: socket.socket) -> str:
    """Return the address of a listening socket as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer:
    """One server from start to end."""

    def __init__(
        self, settings: ServeSettings, load: Load, page: dict[str, PageFile], say: Callable[[str], None]
    ) -> None:
        self.service = Service(settings)
        self._settings = settings
        self._load = load
        self._say = say
        self._failure: BaseException | None = None
        self._ending: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = _Server(_config(create_app(self.service, page)))

    @property
    def stopping(self) -> bool:
        """Return whether the server was asked to end."""
        return self._ending is not None

    async def run(self, listening: socket.socket) -> None:
        """Serve until `stop` is called; raises what loading the model raises."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._load_model, args=(self._loop,), name="load", daemon=True).start()
        await self._server.serve([listening])
        self.service.close()
        if self._failure is not None:
            raise self._failure
        await asyncio.to_thread(self.service.wait, _LEAVE_S)

    def stop(self) -> None:
        """Take no more requests and finish those that are open; a second call ends the process."""
        if self.stopping:
            os._exit(1)
        self._say("stopping: running answers are finished (again to end at once)")
        self._ending = asyncio.ensure_future(self._finish())

    def stop_soon(self) -> None:
        """Call `stop` on the server's thread, from any other; does nothing once the server has ended."""
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.stop)

    def _load_model(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            model_id, engines = self._load()
            self.service.start(model_id, engines, loop.call_soon_threadsafe)
            then = self._open
        except BaseException as error:
            self._failure = error
            then = self._leave
        with contextlib.suppress(RuntimeError):  # it has ended meanwhile
            loop.call_soon_threadsafe(then)

    def _open(self) -> None:
        if self.service.open():
            self._say("ready")

    async def _finish(self) -> None:
        await self.service.finish(self._settings.grace_s)
        self._leave()

    def _leave(self) -> None:
        self.service.close()
        self._server.should_exit = True


def serve(server: HttpServer, listening: socket.socket) -> None:
    """Run a server until a signal ends it."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.stop)
        await server.run(listening)

    asyncio.run(run())


class _Server(uvicorn.Server):
    """uvicorn's server, without its own idea of signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the server."""
        yield


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=ImpatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        log_level="error",  # one warning for each request that is not HTTP would fill a disk
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=int(_LEAVE_S),
    )


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that cuts off readers who take nothing for a while, and clients who do not say what they want.

    They would otherwise hold their answers, and a connection each, for ever.
    """

    _reader: asyncio.TimerHandle | None = None
    _asker: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Read on, and know whether more of a request has to come."""
        super().data_received(data)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        super().connection_lost(exc)
        for timer in (self._reader, self._asker):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        """Begin to wait for a reader."""
        super().pause_writing()
        self._reader = self.loop.call_later(_STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the reader has taken something."""
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _expect_request(self) -> None:
        """Wait for the whole head of a request for as long as for a reader."""
        whole = self.conn.their_state is not h11.IDLE
        if self._asker is not None and whole:
            self._asker.cancel()
            self._asker = None
        elif self._asker is None and not whole:
            self._asker = self.loop.call_later(_STALLED_S, self.transport.abort)
