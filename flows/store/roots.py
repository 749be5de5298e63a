"""Roots: what garbage collection keeps, with everything that it was made from.

`roots/<name>.json` names records. A root that a finished run sets stays until it is dropped. A running plan
has a root of its own (`Hold`), renewed from a thread: it ends with the run, with the run's process, or when
nobody has renewed it for its time to live.

Runs and collectors agree by the order of their steps, whatever their speed. A collector takes the one lease
for collecting, then lists what there is, and then reads the roots. A run writes its root, and then waits for
a collector that may have read the roots before: what is still there afterwards stays.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from flows.store import leases, schema
from flows.store.leases import Lease
from flows.store.records import root_name, root_of
from flows.store.schema import Count, Foreign, Ref, Seconds, Text
from flows.store.storage.base import Storage
from nanochat.errors import Damaged, Interrupted, StoreError

logger = logging.getLogger(__name__)
_COLLECTING = ("gc", "0" * 64)  # stage and key of the lease for collecting
_RUNNING = "running-"  # begins the name of a plan's root
_COLLECTOR_TTL_S = 120.0
_HOLD_TTL_S = 3600.0  # of a run on another machine that may be asleep or out of reach for a while
_BEAT_S = 60.0
_LOOK_S = 0.5  # between two looks at whether a collection has ended


class Root(Foreign):
    """The content of a root file."""

    records: tuple[Ref, ...]
    set_at: Seconds
    ttl_s: Seconds | None = None  # of a running plan: how long it counts without being renewed
    host: Text = ""  # of a running plan: its machine and process, as in a lease
    pid: Count = 0
    started: Seconds = 0.0

    @property
    def temporary(self) -> bool:
        """Whether it ends with the run that holds it."""
        return self.ttl_s is not None

    def live(self, age_s: float) -> bool:
        """Whether it still counts, `age_s` seconds after it was last written."""
        if self.ttl_s is None:
            return True
        if self.host == leases.this_machine():
            return leases.is_running(self.pid, self.started)
        return age_s < self.ttl_s

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return self.model_dump_json(indent=1, exclude_defaults=True).encode()


@dataclass(frozen=True)
class Found:
    """A root as it was found."""

    root: Root
    written: float  # by the storage's clock; by its writer's where the storage has none


def set_root(storage: Storage, name: str, refs: Iterable[Ref]) -> None:
    """Name records that garbage collection keeps, with everything they were made from."""
    storage.write(root_name(name), Root(records=tuple(refs), set_at=time.time()).to_bytes())


def drop_root(storage: Storage, name: str) -> None:
    """Forget a root."""
    storage.delete(root_name(name))


def read_roots(storage: Storage) -> dict[str, Found]:
    """Return all roots by name, also those of plans that no longer run.

    Lists again until nothing new is there: a run sets the root of its results before it gives up its own, and
    one listing could see neither.

    Raises:
        Damaged: some cannot be read, so that what they keep is unknown; names each.
    """
    found: dict[str, Found] = {}
    damaged: list[str] = []
    seen: set[str] = set()
    for tries in itertools.count():
        listed = storage.listing("roots")
        new = {file: name for file in listed if file not in seen and (name := root_of(file))}
        if tries and not new:
            break
        seen |= new.keys()
        for file, name in new.items():
            try:
                root = storage.read_as(file, partial(schema.read, Root))
            except Damaged as error:
                damaged.append(str(error))
            except FileNotFoundError:  # dropped since it was listed
                continue
            else:
                found[name] = Found(root, listed[file].mtime or root.set_at)
    if damaged:
        raise Damaged(f"{storage.url}: {'; '.join(damaged)}", hint=_HINT_DAMAGED)
    return found


_HINT_DAMAGED = (
    "nothing is collected while it is unknown what a root keeps: run its recipe again (or import the model"
    " again, or pass --keep again), which writes it anew, or delete that file to let go of what it kept"
)


def sweep(storage: Storage) -> None:
    """Remove the roots of plans whose process on this machine has died."""
    for file in storage.listing("roots"):
        if (root_of(file) or "").startswith(_RUNNING):
            with suppress(Damaged, FileNotFoundError):  # a damaged one is named when garbage is collected
                root = storage.read_as(file, partial(schema.read, Root))
                if root.host == leases.this_machine() and not root.live(0.0):
                    storage.delete(file)


def start_collecting(storage: Storage) -> Lease:
    """Return the lease that only one collector has; raise StoreError if another has it."""
    held = leases.try_acquire(storage, *_COLLECTING, ttl_s=_COLLECTOR_TTL_S)
    if isinstance(held, Lease):
        return held
    raise StoreError(
        f"{storage.url} is being collected already, on {held.host}, process {held.pid}",
        hint="try again when that has ended",
    )


def wait_for_collector(storage: Storage, *, stop: threading.Event | None = None) -> bool:
    """Wait until no collection runs that began before this call; return whether one did.

    A collector whose time is up loses its lease, and so deletes no more. Raises `Interrupted` once `stop` is
    set.
    """
    first: str | None = None
    while held := leases.current(storage, *_COLLECTING):
        if first is None:
            first = held.holder
            logger.info("waiting for the garbage collection on %s, process %d", held.host, held.pid)
        if held.holder != first:
            return True
        if not held.live:
            storage.delete(held.name)
            return True
        if (stop or threading.Event()).wait(_LOOK_S):
            raise Interrupted(f"stopped while waiting for the garbage collection of {storage.url}")
    return first is not None


class Hold:
    """The root of something that runs, such as a plan: renewed by a thread until released."""

    def __init__(self, storage: Storage, name: str, *, stop: threading.Event | None = None) -> None:
        self.name = f"{_RUNNING}{name}-{uuid.uuid4().hex[:8]}"
        self._storage = storage
        self._stop = stop
        self._refs: dict[Ref, None] = {}  # in order
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._heartbeat, name=self.name, daemon=True)
        self._thread.start()

    def add(self, refs: Iterable[Ref]) -> None:
        """Hold these too, made or not: those that are there after this call stay there."""
        with self._lock:
            new = [ref for ref in refs if ref not in self._refs]
            if not new:
                return
            self._refs |= dict.fromkeys(new)
            self._write()
        wait_for_collector(self._storage, stop=self._stop)

    def release(self) -> None:
        """Stop renewing, and remove the root."""
        self._released.set()
        self._thread.join()  # a renewal under way would bring the file back
        try:
            drop_root(self._storage, self.name)
        except StoreError as error:  # it ends with this process
            logger.warning("%s: root not removed: %s", self.name, error)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _write(self) -> None:
        root = Root(
            records=tuple(self._refs),
            set_at=time.time(),
            ttl_s=_HOLD_TTL_S,
            host=leases.this_machine(),
            pid=os.getpid(),
            started=leases.started_at(os.getpid()),
        )
        self._storage.write(root_name(self.name), root.to_bytes())

    def _heartbeat(self) -> None:
        while not self._released.wait(_BEAT_S):
            try:
                with self._lock:
                    if self._refs:
                        self._write()
            except Exception as error:  # it counts for a while without; an outage may pass
                logger.warning("%s: root not renewed: %s", self.name, error)
