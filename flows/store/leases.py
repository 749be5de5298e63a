"""Leases: who is making an artifact right now, so that nobody else makes it too.

`leases/<stage>/<key>.<fence>.json` says who holds a stage and until when. Taking a lease means creating the
file with the next fence number, which only one process can do; that atomic create is all that a storage must
offer. The holder renews its own file from a thread. A holder that died stops renewing, and once its time is
up (immediately if it was a process of this machine) the next one creates the following number. A holder that
slept through that sees the higher number, or finds its file gone, and must not publish: `check` raises
`LeaseLost`.

A lease file that cannot be read counts as held for `UNREADABLE_S` after it was last written: a living holder
learns at its next renewal that it lost it, and must not publish.

Clocks of different machines must agree to within half the time to live. Not here: what is done under a lease.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import psutil

from flows.store import schema
from flows.store.records import lease_of
from flows.store.schema import STRICT, Count, Key, Name, Ref, Seconds, Text
from flows.store.storage.base import ObjectInfo, Storage
from nanochat.errors import Damaged, LeaseLost, StoreError

logger = logging.getLogger(__name__)
UNREADABLE_S = 600.0  # a holder renews three times within its time to live, which is half a minute by default
_SWEEP_TTL_S = 30.0


@dataclass(frozen=True, kw_only=True)
class LeaseInfo:
    """The content of a lease file."""

    stage: Name
    key: Key
    fence: Count
    holder: Text  # unique to one acquisition
    expires: Seconds  # since the epoch
    host: Text
    pid: Count
    started: Seconds  # when the process began: distinguishes it from a later one with the same pid
    needs: tuple[Ref, ...] = ()  # records that the work reads; garbage collection keeps them

    __pydantic_config__ = STRICT

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"leases/{self.stage}/{self.key}.{self.fence}.json"

    @property
    def readable(self) -> bool:
        """Whether the file said all this; if not, only stage, key and fence are known, by its name."""
        return self.holder != ""

    @property
    def live(self) -> bool:
        """Whether the holder may still be at work."""
        if self.host == this_machine() and not is_running(self.pid, self.started):
            return False
        return time.time() < self.expires

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> LeaseInfo:
        """Read the lease file `name`; what does not fit raises ValueError."""
        info = schema.read(cls, data)
        if info.name != name or not info.readable:
            raise ValueError(f"it says that it is {info.name}")
        return info


class Lease:
    """The right to make and publish one artifact; renewed by a thread until released."""

    def __init__(
        self, storage: Storage, info: LeaseInfo, ttl_s: float, on_lost: Callable[[], None] | None = None
    ) -> None:
        self.storage = storage
        self.info = info
        self.ttl_s = ttl_s
        self.lost = threading.Event()
        self._on_lost = on_lost
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._heartbeat, name=f"lease {info.stage}", daemon=True)
        self._thread.start()

    @property
    def fence(self) -> int:
        """Number of this tenure; a later holder has a higher one."""
        return self.info.fence

    def check(self) -> None:
        """Return if this is still the holder, else raise `LeaseLost`. Call right before publishing."""
        with self._lock:
            if self._released.is_set():
                raise LeaseLost(f"{self.info.stage}/{self.info.key[:12]}: the lease was released")
            try:
                self._prove()
            except LeaseLost:
                self._tell_lost()
                raise

    def release(self) -> None:
        """Stop renewing, then give the lease up; the next one can have it immediately."""
        self._released.set()
        self._thread.join()  # a renewal under way would bring the file back
        if not self.lost.is_set():
            try:
                self.storage.delete(self.info.name)
            except StoreError as error:  # it expires by itself
                logger.warning("%s/%s: lease not released: %s", self.info.stage, self.info.key[:12], error)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _prove(self) -> None:
        """Raise `LeaseLost` if somebody else holds the lease."""
        successor = f"leases/{self.info.stage}/{self.info.key}.{self.fence + 1}.json"
        try:
            mine = _load(self.storage, self.info.name).holder == self.info.holder
        except FileNotFoundError:
            mine = False
        except Damaged as error:
            raise LeaseLost(
                f"{self.info.stage}/{self.info.key[:12]}: whose lease it is cannot be read: {error}",
                hint="nothing was published; it is free again a while after the file was last written",
            ) from error
        if not mine or self.storage.found(successor):
            raise LeaseLost(
                f"{self.info.stage}/{self.info.key[:12]}: another run took over, because this one had"
                f" not renewed its lease for {self.ttl_s:g} s",
                hint="nothing was published; the other run's result will be used",
            )

    def _renew(self) -> None:
        with self._lock:
            self._prove()
            data = LeaseInfo(**{**vars(self.info), "expires": time.time() + self.ttl_s}).to_bytes()
            self.storage.write(self.info.name, data)
            self._prove()  # whoever saw the old time in between is seen here or at the next beat

    def _heartbeat(self) -> None:
        while not self._released.wait(self.ttl_s / 3):
            try:
                self._renew()
            except LeaseLost as error:
                logger.error("%s", error)
                self._tell_lost()
                return
            except Exception as error:  # an outage does not lose it; `check` decides before publishing
                logger.warning("%s: lease not renewed: %s", self.info.stage, error)

    def _tell_lost(self) -> None:
        if not self.lost.is_set():
            self.lost.set()
            if self._on_lost:
                self._on_lost()


def current(storage: Storage, stage: str, key: str) -> LeaseInfo | None:
    """Return the lease with the highest fence number, live or not."""
    found = storage.listing(f"leases/{stage}")
    fences = {name: lease[2] for name in found if (lease := lease_of(name)) and lease[:2] == (stage, key)}
    for name in sorted(fences, key=fences.__getitem__, reverse=True):
        if info := _read(storage, name, found[name]):
            return info
    return None


def all_leases(storage: Storage) -> list[LeaseInfo]:
    """Return every lease in the store, live or not, also those that cannot be read."""
    listed = storage.listing("leases")
    found = (_read(storage, name, listed[name]) for name in listed if lease_of(name))
    return [info for info in found if info]


def try_acquire(
    storage: Storage,
    stage: str,
    key: str,
    *,
    ttl_s: float,
    needs: tuple[Ref, ...] = (),
    on_lost: Callable[[], None] | None = None,
) -> Lease | LeaseInfo:
    """Return the lease, or the one that another process holds."""
    held = current(storage, stage, key)
    if held and held.live:
        return held
    wanted = LeaseInfo(
        stage=stage,
        key=key,
        fence=held.fence + 1 if held else 1,
        holder=uuid.uuid4().hex,
        expires=time.time() + ttl_s,
        host=this_machine(),
        pid=os.getpid(),
        started=started_at(os.getpid()),
        needs=needs,
    )
    created = storage.create(wanted.name, wanted.to_bytes())
    now = current(storage, stage, key) or wanted
    if not created or now.fence > wanted.fence:  # numbers start over after a release: two may have raced
        if created:
            storage.delete(wanted.name)
        return now
    if held:
        logger.warning("%s/%s: taken over from %s, process %d", stage, key[:12], held.host, held.pid)
        storage.delete(held.name)
    return Lease(storage, wanted, ttl_s, on_lost)


def sweep(storage: Storage) -> None:
    """Remove the leases of dead holders: by taking them over, so that nobody else does meanwhile."""
    for info in all_leases(storage):
        if not info.live:
            lease = try_acquire(storage, info.stage, info.key, ttl_s=_SWEEP_TTL_S)
            if isinstance(lease, Lease):
                lease.release()


def _load(storage: Storage, name: str) -> LeaseInfo:
    return storage.read_as(name, partial(LeaseInfo.from_bytes, name))


def _read(storage: Storage, name: str, listed: ObjectInfo) -> LeaseInfo | None:
    """Return a lease that was listed; for one that cannot be read, what its name and its age say."""
    try:
        return _load(storage, name)
    except FileNotFoundError:  # released since it was listed
        return None
    except Damaged as error:
        stage, key, fence = lease_of(name) or ("", "", 0)
        expires = listed.mtime + UNREADABLE_S
        if time.time() < expires:
            logger.warning("%s: counts as held for up to %.0f min more", error, (expires - time.time()) / 60)
        return LeaseInfo(
            stage=stage, key=key, fence=fence, holder="", expires=expires, host=f"{name}, which is damaged",
            pid=0, started=0.0,
        )  # fmt: skip


@functools.cache
def this_machine() -> str:
    """Return a name for this machine, boot and process namespace: where a process id means something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot[:8]} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def started_at(pid: int) -> float:
    """Return when a process of this machine began."""
    return float(psutil.Process(pid).create_time())


def is_running(pid: int, started: float) -> bool:
    """Return whether the process of this machine that began then still runs."""
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
