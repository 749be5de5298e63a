"""What both processes of a judgement give up before a line of foreign code runs in them.

Levels, from strong to weak: `namespaces` (namespaces, Landlock and seccomp) and `landlock` (Landlock and
seccomp) on Linux, `seatbelt` on macOS, `none` where the user allowed unsafe code. Limits on memory, processor
time and open files are set at each of them. Nothing here falls back: a step that fails raises.
"""

from __future__ import annotations

import math
import os
import resource
import sys

from nanochat.evals.jail import landlock, namespaces, seatbelt, seccomp
from nanochat.evals.jail.landlock import READ_DIR, READ_FILE
from nanochat.evals.jail.system_calls import call, library

_CAPABILITIES_VERSION = 0x20080522
_NO_NEW_PRIVILEGES, _PARENT_DEATH_SIGNAL, _SIGKILL = 38, 1, 9
_NOT_ON_MACOS = ("RLIMIT_AS", "RLIMIT_DATA")  # refused there
_MAX_FILE_BYTES = 16 * 2**20  # where files can be written at all


def limit(cpu_seconds: float, memory_bytes: int) -> None:
    """Bound the processor time, memory and files of this process."""
    limits = {
        # Whole seconds, and sampled by the kernel at its ticks: the exact limit is watched from outside.
        "RLIMIT_CPU": math.ceil(cpu_seconds) + 1,
        "RLIMIT_AS": memory_bytes,
        "RLIMIT_DATA": memory_bytes,
        "RLIMIT_FSIZE": _MAX_FILE_BYTES,
        "RLIMIT_NOFILE": 32,
        "RLIMIT_NPROC": 1,
        "RLIMIT_CORE": 0,
    }
    for name, value in limits.items():
        kind = getattr(resource, name, None)
        if kind is not None and not (sys.platform == "darwin" and name in _NOT_ON_MACOS):
            _, hard = resource.getrlimit(kind)
            # One second between the signal that says so and the one that ends it.
            last = value + 1 if name == "RLIMIT_CPU" else value
            resource.setrlimit(kind, (_at_most(hard, value), _at_most(hard, last)))


def _at_most(hard: int, value: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def confine(level: str, *, program: bool) -> None:
    """Enter the jail of a level, as the program or as its checker."""
    if level in ("namespaces", "landlock"):
        _confine_on_linux(program=program, change_root=program and level == "namespaces")
    elif level == "seatbelt":
        seatbelt.confine(readable(), program=program)


def _confine_on_linux(*, program: bool, change_root: bool) -> None:
    rules = _rules(readable())
    if change_root:
        namespaces.change_root(list(readable()))
    if program:
        library("prctl", _PARENT_DEATH_SIGNAL, _SIGKILL, 0, 0, 0)
    library("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    landlock.restrict(rules, scoped=program)
    header = _CAPABILITIES_VERSION.to_bytes(4, sys.byteorder) + bytes(4)
    call("capset", header, bytes(24))
    seccomp.install(() if program else seccomp.CHECKER_ONLY)


def readable() -> list[str]:
    """Return the folders of the interpreter: its modules, and the shared libraries that these load."""
    modules = [path for path in sys.path if os.path.isdir(path)]
    return [*modules, *_library_folders(), *(p for p in ("/etc/ld.so.cache",) if os.path.exists(p))]


def _library_folders() -> list[str]:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            files = [line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line]
    except FileNotFoundError:
        return []
    return sorted({os.path.dirname(file) for file in files if file.startswith("/")})


def _rules(folders: list[str]) -> dict[str, int]:
    """Return the rights on each file and folder; installed packages are not the interpreter's."""
    rules: dict[str, int] = {}
    modules = {path for path in folders if path in sys.path}
    for folder in folders:
        if folder in modules:
            rules[folder] = READ_DIR
            rules |= {e.path: READ_FILE | READ_DIR for e in os.scandir(folder) if e.name not in _PACKAGES}
        elif any(module.startswith(folder + "/") for module in modules):
            # The folder of the interpreter's own library has the modules in it: its libraries one by one.
            rules |= {e.path: READ_FILE for e in os.scandir(folder) if ".so" in e.name}
        else:
            rules[folder] = READ_FILE
    return rules


_PACKAGES = ("site-packages", "dist-packages")
