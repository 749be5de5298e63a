"""A process that makes one artifact through the store: `python tests/support/store_worker.py URL JSON`.

It prints `waiting` or `working` when it gets there, and at the end one JSON line with what became of it.
Tests stop, continue and kill it. Settings: key, ttl_s, text, `work_s`, and `ask`, which works until
`outcome` makes it go on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]


def spawn(url: str, **settings: Any) -> subprocess.Popen[str]:
    """Start a worker."""
    return subprocess.Popen(
        [sys.executable, __file__, url, json.dumps(settings)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_ROOT,
    )  # fmt: skip


def outcome(worker: subprocess.Popen[str]) -> dict[str, Any]:
    """Make a worker go on, wait for its end and return its last line."""
    out, err = worker.communicate("go on\n", timeout=240)
    assert worker.returncode == 0, err
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def until(worker: subprocess.Popen[str], line: str) -> None:
    """Read a worker's lines until `line` comes."""
    assert worker.stdout
    for got in worker.stdout:
        if got.strip() == line:
            return
    raise AssertionError(
        f"the worker ended without saying {line!r}: {worker.stderr and worker.stderr.read()}"
    )


def main(url: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Make the artifact or get it from whoever does."""
    from flows.store import Store
    from flows.store.fingerprint import fingerprint
    from flows.store.leases import Lease
    from nanochat.errors import LeaseLost

    payload = {"stage": "pretrain", "key": settings.get("key", 0)}
    key = fingerprint(payload)
    with tempfile.TemporaryDirectory() as scratch:
        store = Store.open(url, cache=Path(scratch, "cache"))
        held = store.acquire(
            "pretrain", key, ttl_s=settings.get("ttl_s", 30), poll_s=0.05,
            on_wait=lambda _: print("waiting", flush=True),
        )  # fmt: skip
        if not isinstance(held, Lease):
            return {"did": "hit", "digest": held.digest}
        with held as lease:
            print("working", flush=True)
            if settings.get("ask"):
                sys.stdin.readline()
            time.sleep(settings.get("work_s", 0.0))
            out = Path(scratch, "out")
            out.mkdir()
            (out / "model.txt").write_text(settings.get("text", "trained"))
            try:
                record = store.commit(
                    stage="pretrain", node="pretrain", key=key, payload=payload, folder=out, lease=lease
                )
            except LeaseLost as error:
                return {"did": "lost", "told": str(error)}
        return {"did": "made", "digest": record.digest, "fence": lease.fence}


if __name__ == "__main__":
    sys.path.insert(0, str(_ROOT))
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))), flush=True)
