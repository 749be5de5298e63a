"""Namespaces: a judged program sees no network, no other process, and no file but the interpreter's.

The checker enters namespaces of its own and forks the program, which becomes process 1 of its own world and
takes a new root: an empty file system in memory, read-only, with the interpreter's folders bound into it.
The user in there is mapped to the one outside and has an unprivileged number; capabilities are dropped
elsewhere.
"""

from __future__ import annotations

import os

from nanochat.evals.jail.system_calls import call, library

_NEW_NS, _NEW_CGROUP, _NEW_UTS, _NEW_IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_NEW_USER, _NEW_PID, _NEW_NET = 0x10000000, 0x20000000, 0x40000000
_NOSUID_NODEV, _READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 6, 1, 32, 4096, 16384, 1 << 18
_DETACH = 2
_NOBODY = 65534
_BASE = "/tmp"  # where the new root is mounted until it is the root; nothing is written to the folder itself
_OLD = "/.old"


def enter() -> None:
    """Enter new namespaces of users, networks, IPC, names and groups; children get a new one of processes."""
    user, group = os.geteuid(), os.getegid()
    library("unshare", _NEW_USER | _NEW_PID | _NEW_NET | _NEW_IPC | _NEW_UTS | _NEW_CGROUP)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{_NOBODY} {user} 1")
    _write("/proc/self/gid_map", f"{_NOBODY} {group} 1")


def change_root(visible: list[str]) -> None:
    """Make a new root in which only these files and folders are, at their own places."""
    sources = {path: os.path.realpath(path) for path in visible}
    links = {entry.path: os.readlink(entry) for entry in os.scandir("/") if entry.is_symlink()}
    library("unshare", _NEW_NS)
    library("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
    library("mount", b"jail", _BASE.encode(), b"tmpfs", _NOSUID_NODEV, b"size=1m,nr_inodes=2k,mode=755")
    os.mkdir(_BASE + _OLD)
    call("pivot_root", _BASE.encode(), (_BASE + _OLD).encode())
    os.chdir("/")
    for path, target in links.items():  # /lib and /lib64 are names of folders elsewhere
        os.symlink(target, path)
    for path, source in sorted(sources.items()):  # a folder before what lies in it
        _bind(_OLD + source, path)
    library("umount2", _OLD.encode(), _DETACH)
    os.rmdir(_OLD)
    library("mount", None, b"/", None, _REMOUNT | _BIND | _READ_ONLY | _NOSUID_NODEV, None)


def _bind(source: str, path: str) -> None:
    if os.path.exists(path):
        return  # in a folder that is bound already
    if os.path.isdir(source):
        os.makedirs(path)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    library("mount", source.encode(), path.encode(), None, _BIND | _RECURSIVE, None)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
