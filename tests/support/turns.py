"""Threads that take turns at a store: one operation of its storage at a time, in the order of a test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from flows.store.storage.base import Storage

_OPERATIONS = (
    "read",
    "read_as",
    "create",
    "write",
    "upload",
    "download",
    "hash",
    "found",
    "listing",
    "delete",
)


class Turns:
    """Runs functions in parallel; before each operation the turn stays or passes to another of them."""

    def __init__(self, passes: Iterable[bool]) -> None:
        """Pass the turn where `passes` says so, and each time once it is exhausted."""
        self._passes = iter(passes)
        self._changed = threading.Condition()
        self._alive: list[threading.Thread] = []
        self._current: threading.Thread | None = None

    def gate(self, storage: Storage) -> None:
        """Let operations of this storage wait for their turn."""
        for name in _OPERATIONS:
            setattr(storage, name, self._waiting(getattr(storage, name)))

    def run(self, *functions: Callable[[], object]) -> None:
        """Run all functions to their ends; raise the first error."""
        errors: list[BaseException] = []

        def guarded(function: Callable[[], object]) -> None:
            try:
                self._await()
                function()
            except BaseException as error:
                errors.append(error)
            finally:
                self._leave()

        self._alive = [threading.Thread(target=guarded, args=(f,), daemon=True) for f in functions]
        self._current = self._alive[0]
        threads = list(self._alive)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "it hangs"
        if errors:
            raise errors[0]

    def _waiting(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if threading.current_thread() in self._alive:  # a heartbeat needs no turn
                self._pass_on()
            return operation(*args, **options)

        return call

    def _pass_on(self) -> None:
        with self._changed:
            if next(self._passes, True):
                self._next()
        self._await()

    def _await(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._current is threading.current_thread())

    def _next(self) -> None:
        mine = self._alive.index(threading.current_thread())
        self._current = self._alive[(mine + 1) % len(self._alive)]
        self._changed.notify_all()

    def _leave(self) -> None:
        with self._changed:
            self._next()
            self._alive.remove(threading.current_thread())
