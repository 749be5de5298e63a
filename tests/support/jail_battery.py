"""Runs all attacks at a level of the jail, and says what each came to and which canary it touched.

A program of its own, so that it can be started as another user: with a level it prints JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from nanochat.evals.jail.judging import Attempt, Limits, judge_all
from tests.support.jail_attacks import ATTACKS, Attack

ROOT = Path(__file__).parents[2]
DONE, KEPT = "it worked", "a secret that is kept in a file"
_LIMITS = Limits(cpu_seconds=0.3, asleep_seconds=1.5)
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER
_SHM_KEY = 0x6A000000 + os.getpid()  # of a segment of shared memory
_TEST = f"""
# EXPECTED: {DONE}
def check(candidate):
    found = candidate()
    assert found == {DONE!r}
    assert isinstance(found, str) and len(found) == {len(DONE)}
    assert all(a == b for a, b in zip(found, {DONE!r}))
"""


class Outside:
    """What attacks aim at: files, listeners, processes, shared memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = folder / "secret"
        self.secret.write_text(KEPT, encoding="utf-8")
        os.set_inheritable(os.open(self.secret, os.O_RDONLY), True)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(self.tcp.getsockname())
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0{folder.name}")
        self.file = socket.socket(socket.AF_UNIX)
        self.file.bind(str(folder / "socket"))
        self.abstract.listen()
        self.file.listen()
        self.shm = ctypes.CDLL(None).shmget(_SHM_KEY, 4096, 0o1666)
        self.shared = Path("/dev/shm") / folder.name
        self.victims: dict[str, subprocess.Popen[bytes]] = {}

    def names(self, attack: Attack) -> dict[str, object]:
        """Return what stands for the aims in an attack's text."""
        own = self.folder / attack.name
        own.mkdir()
        (own / "mine").write_text("mine", encoding="utf-8")
        os.utime(own / "mine", (10**9, 10**9))
        names: dict[str, object] = {
            "OUTSIDE": str(own),
            "MINE": str(own / "mine"),
            "SECRET": str(self.secret),
        }
        names |= {"KEPT": KEPT, "DONE": DONE, "PORT": self.tcp.getsockname()[1], "SHM_KEY": _SHM_KEY}
        names |= {"ABSTRACT": self.folder.name, "SOCKET": str(self.folder / "socket")}
        names |= {
            "SHARED": str(self.shared),
            "PROJECT": str(ROOT / "pyproject.toml"),
            "PACKAGE": _installed_package(),
        }
        if "VICTIM" in attack.body:
            self.victims[attack.name] = subprocess.Popen(["sleep", "300"])
            names["VICTIM"] = self.victims[attack.name].pid
        return names

    def touched(self) -> dict[str, str]:
        """Return what has changed, by the attack that did it or by the kind of canary."""
        found = {own.parent.name: "files" for own in self.folder.glob("*/mine") if not _untouched(own)}
        found |= {
            own.name: "files" for own in self.folder.iterdir() if own.is_dir() and not (own / "mine").exists()
        }
        for name, victim in self.victims.items():
            if _state(victim.pid) != ("S", os.getpriority(os.PRIO_PROCESS, 0)):
                found[name] = "process"
        for name in ("tcp", "udp", "abstract", "file"):
            listener = getattr(self, name)
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                found[f"network {name}"] = repr(listener.recv(9) if name == "udp" else listener.accept())
        found |= {
            f"process {pid}": "survives" for pid in _children() - {v.pid for v in self.victims.values()}
        }
        return found | ({"writes_shared_memory": "/dev/shm"} if self.shared.exists() else {})

    def close(self) -> None:
        for victim in self.victims.values():
            victim.kill()
            victim.wait()
        self.shared.unlink(missing_ok=True)
        ctypes.CDLL(None).shmctl(self.shm, 0, None)


def _untouched(file: Path) -> bool:
    status = file.stat()
    return (
        (status.st_mtime, status.st_uid, status.st_size, status.st_mode & 0o111) == (10**9, os.getuid(), 4, 0)
        and list(file.parent.iterdir()) == [file]
        and status.st_nlink == 1
    )


def _state(pid: int) -> tuple[str, int]:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return fields[0], int(fields[16])


def _children() -> set[int]:
    """Return the living processes below this one, orphans included once they are adopted."""
    listed = [
        int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()
    ]
    return {pid for pid in listed if _state(pid)[0] != "Z"}


def _installed_package() -> str:
    """Return a file of an installed package, where the interpreter has one beside its modules."""
    folder = Path(os.path.realpath(os.__file__)).parent
    found = [
        *folder.glob("site-packages/*/__init__.py"),
        *folder.parent.glob("python3/dist-packages/*/__init__.py"),
    ]
    return str(next((path for path in found if path.stat().st_size), folder / "site-packages"))


def run(level: str) -> dict[str, object]:
    """Run the attacks; without a jail only those that harm nobody."""
    chosen = [attack for attack in ATTACKS if attack.harmless or level != "none"]
    with tempfile.TemporaryDirectory(prefix="jail-battery-") as folder:
        outside = Outside(Path(folder))
        try:
            attempts = [_attempt(attack, outside.names(attack)) for attack in chosen]
            verdicts = judge_all(attempts, level, workers=8, limits=_LIMITS)
            time.sleep(0.6)  # for grandchildren to do what they do later
            touched = outside.touched()
        finally:
            outside.close()
    results = {a.name: (v.status, v.detail) for a, v in zip(chosen, verdicts, strict=True)}
    return {"verdicts": results, "touched": touched, "user": os.getuid()}


def _attempt(attack: Attack, names: dict[str, object]) -> Attempt:
    heads = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    body = attack.body if attack.at_load else "def attack():\n" + textwrap.indent(attack.body, "    ")
    tail = "\ndef attack(): pass\n" if attack.at_load else ""
    return Attempt(program=f"{heads}{body}{tail}", test=_TEST, entry_point="attack")


if __name__ == "__main__":
    signal.alarm(300)
    ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
    print(json.dumps(run(sys.argv[1])))
