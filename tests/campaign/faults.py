"""What a campaign does to a site while pipelines run on it: each fault returns what it hit, or None.

A fault counts only if it happened: the process was running, the object was there.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from flows.store.gc import collect
from nanochat.errors import NanochatError
from tests.campaign.site import Site
from tests.support.s3_server import S3Server

Fault = Callable[[Site, random.Random], str | None]


def kill_a_run(site: Site, rng: random.Random) -> str | None:
    """SIGKILL a process that runs the plan."""
    running = [run for run in site.runs if run.running]
    if not running:
        return None
    run = rng.choice(running)
    os.kill(run.pid, signal.SIGKILL)
    run.join(10)
    return f"run {run.pid}"


def kill_a_child(site: Site, rng: random.Random) -> str | None:
    """SIGKILL a rank, the agent of the ranks or an encoding process."""
    children = [child for run in site.runs for child in run.tree()]
    if not children:
        return None
    child = rng.choice(children)
    try:
        what = " ".join(child.cmdline()[1:5])
        child.kill()
    except psutil.NoSuchProcess:
        return None
    return what


def freeze_a_run(site: Site, rng: random.Random) -> str | None:
    """SIGSTOP a process and its children for a while."""
    running = [run for run in site.runs if run.running]
    if not running:
        return None
    run = rng.choice(running)
    family = [psutil.Process(run.pid), *run.tree()]
    frozen = rng.choice([family, family[:1], family[1:] or family])
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in frozen:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        time.sleep(rng.uniform(0.2, 2.0) if number == signal.SIGSTOP else 0)
    return f"{len(frozen)} processes of {run.pid}"


def delete_an_object(site: Site, rng: random.Random) -> str | None:
    """Remove an object of the store."""
    return _damage(site, "delete", rng)


def truncate_an_object(site: Site, rng: random.Random) -> str | None:
    """Cut an object of the store short."""
    return _damage(site, "truncate", rng)


def flip_a_bit(site: Site, rng: random.Random) -> str | None:
    """Flip one bit of an object of the store."""
    return _damage(site, "flip", rng)


def kill_the_store(site: Site, rng: random.Random) -> str | None:
    """SIGKILL the S3 server and start it again."""
    return _outage(site.server, S3Server.kill, S3Server.start, rng)


def freeze_the_store(site: Site, rng: random.Random) -> str | None:
    """Let the S3 server hang."""
    return _outage(site.server, S3Server.freeze, S3Server.thaw, rng)


def fill_the_disk(site: Site, rng: random.Random) -> str | None:
    """Leave no space for a while where home and store are."""
    if not site.small_disk:
        return None
    ballast = site.home / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    time.sleep(rng.uniform(0.5, 2.5))
    ballast.unlink()
    return str(site.home)


def collect_garbage(site: Site, rng: random.Random) -> str | None:
    """Collect without a grace period."""
    try:
        report = collect(site.store(), grace_s=0.0)
    except NanochatError:  # nothing has a root yet, or something needed is damaged
        return None
    return f"{len(report.names)} objects went"


def _outage(
    server: S3Server | None,
    begin: Callable[[S3Server], None],
    end: Callable[[S3Server], None],
    rng: random.Random,
) -> str | None:
    if server is None:
        return None
    begin(server)
    time.sleep(rng.uniform(0.1, 3.0))
    end(server)
    return server.endpoint


def _damage(site: Site, how: str, rng: random.Random) -> str | None:
    with suppress(NanochatError):  # the store may be away
        folder = rng.choice(_DELETED if how == "delete" else _DAMAGED)
        among = [name for name in site.objects() if name.startswith(folder)]
        if among and site.damage(name := rng.choice(among), how, rng):
            return name
    return None


_DAMAGED = ("blobs/", "blobs/", "records/", "resume/")
# A lease or root that cannot be read counts as one that holds, for minutes or until somebody deletes it.
_DELETED = (*_DAMAGED, "leases/", "roots/")
FAULTS: dict[str, tuple[Fault, int]] = {  # with how often it comes
    "SIGKILL of a run": (kill_a_run, 3),
    "SIGKILL of a rank, agent or encoder": (kill_a_child, 8),
    "SIGSTOP and SIGCONT": (freeze_a_run, 2),
    "object deleted": (delete_an_object, 3),
    "object truncated": (truncate_an_object, 3),
    "bit flipped": (flip_a_bit, 4),
    "S3 server killed": (kill_the_store, 1),
    "S3 server frozen": (freeze_the_store, 1),
    "disk full": (fill_the_disk, 3),
    "garbage collected": (collect_garbage, 2),
}
CLOCK = "clock jumped"  # is given to a run at its start
