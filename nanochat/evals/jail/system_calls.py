"""The few system calls of Linux that Python has no function for, and their numbers.

No package is used for namespaces, Landlock and seccomp: those on offer are pre-releases, very young, or need
a shared library that is often absent, and what is needed here is a dozen calls through ctypes. Numbers are
those of the kernel's table for x86-64 and of the generic one, which 64-bit ARM uses.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform

_COLUMN = {"x86_64": 0, "aarch64": 1}
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name -> number on x86-64 and on 64-bit ARM; None where the second has no such call
NUMBERS: dict[str, tuple[int, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "poll": (7, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "ioctl": (16, 29),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "select": (23, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "dup": (32, 23),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "wait4": (61, 260),
    "kill": (62, 129),
    "uname": (63, 160),
    "fcntl": (72, 25),
    "getcwd": (79, 17),
    "readlink": (89, None),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "getppid": (110, 173),
    "capset": (126, 91),
    "sigaltstack": (131, 132),
    "pivot_root": (155, 41),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "getdents64": (217, 61),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "openat": (257, 56),
    "newfstatat": (262, 79),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "set_robust_list": (273, 99),
    "prlimit64": (302, 261),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "statx": (332, 291),
    "rseq": (334, 293),
    "faccessat2": (439, 439),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}


@functools.cache
def _libc() -> ctypes.CDLL:
    found = ctypes.CDLL(None, use_errno=True)
    found.syscall.restype = ctypes.c_long
    return found


def number(name: str) -> int | None:
    """Return the number of a call on this machine, or None where it has no such call."""
    try:
        return NUMBERS[name][_COLUMN[platform.machine()]]
    except KeyError:
        raise OSError(
            f"no system call numbers for {platform.machine()!r}: x86_64 and aarch64 are known"
        ) from None


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call; raises OSError with its name."""
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(name, _libc().syscall(ctypes.c_long(number(name) or -1), *passed))


def library(name: str, *arguments: int | bytes | None) -> int:
    """Call a function of the C library that returns -1 on failure; raises OSError with its name."""
    passed = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    return checked(name, getattr(_libc(), name)(*passed))


def checked(name: str, result: int) -> int:
    """Return the result of a call; raises OSError where it is -1."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
