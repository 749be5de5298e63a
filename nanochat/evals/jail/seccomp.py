"""The seccomp filter: the system calls that a judged program may make; all others answer "not permitted".

A list of what is allowed, not of what is forbidden, so that calls of later kernels are forbidden too. No call
on it makes a process or a thread, opens a file for writing, makes a socket, signals, maps shared memory by
name, or raises a limit: hence one process with its own limits is all there ever is, whoever the user is.
"""

from __future__ import annotations

import ctypes
import platform
import struct

from nanochat.evals.jail.system_calls import AUDIT_ARCH, library, number

_PLAIN = (
    *("read", "readv", "pread64", "write", "writev", "close", "lseek", "dup", "getdents64", "getcwd"),
    *("stat", "lstat", "fstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"),
    *("readlink", "readlinkat", "poll", "ppoll", "select", "pselect6"),
    *("mprotect", "munmap", "mremap", "madvise", "brk", "futex", "membarrier"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    *("set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "getcpu", "getrandom"),
    *("getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid", "uname", "sysinfo"),
    *("gettimeofday", "time", "times", "getrusage", "clock_gettime", "clock_getres"),
    *("nanosleep", "clock_nanosleep", "exit", "exit_group"),
)
CHECKER_ONLY = ("kill", "wait4")

_WRITING = 0x1 | 0x2 | 0x40 | 0x200 | 0x400000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE's own bit
_MAP_SHARED = 0x1  # also set in MAP_SHARED_VALIDATE
_FCNTL = (0, 1, 2, 3, 1030)  # duplicate, read and set close-on-exec, read flags
_IOCTL = (0x5401, 0x5450, 0x5451)  # is it a terminal?, close-on-exec off and on

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # 1: EPERM
_NR, _ARCH = 0, 4
_SET_SECCOMP, _MODE_FILTER = 22, 2

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, value


def install(extra: tuple[str, ...] = ()) -> None:
    """Filter this process's system calls from now on; needs no_new_privs."""
    program = assemble(extra)
    data = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(data, len(data))
    # struct sock_fprog: a count, padding up to a pointer, the pointer
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    library("prctl", _SET_SECCOMP, _MODE_FILTER, header, 0, 0)


def assemble(extra: tuple[str, ...] = ()) -> list[Instruction]:
    """Return the filter as instructions of the kernel's packet filter machine."""
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, AUDIT_ARCH[platform.machine()]),
        (_RETURN, 0, 0, _KILL),  # the calls of another architecture have other numbers
        (_LOAD, 0, 0, _NR),
    ]
    for name in (*_PLAIN, *extra):
        program += _rule(name, [(_RETURN, 0, 0, _ALLOW)])
    program += _rule("open", _none_of(1, _WRITING))
    program += _rule("openat", _none_of(2, _WRITING))
    program += _rule("mmap", _none_of(3, _MAP_SHARED))
    program += _rule("fcntl", _one_of(1, _FCNTL))
    program += _rule("ioctl", _one_of(1, _IOCTL))
    # Reading its own limits: no process named, no new limit given.
    program += _rule("prlimit64", [*_is_zero(0), *_is_zero(2), (_RETURN, 0, 0, _ALLOW)])
    return [*program, (_RETURN, 0, 0, _DENY)]


def _rule(name: str, body: list[Instruction]) -> list[Instruction]:
    """Return what is done for one call; the body ends in a return."""
    wanted = number(name)
    return [] if wanted is None else [(_EQUAL, 0, len(body), wanted), *body]


def _argument(index: int, *, high: bool = False) -> Instruction:
    return (_LOAD, 0, 0, 16 + 8 * index + 4 * high)


def _none_of(index: int, bits: int) -> list[Instruction]:
    return [_argument(index), (_ANY_BIT, 0, 1, bits), (_RETURN, 0, 0, _DENY), (_RETURN, 0, 0, _ALLOW)]


def _one_of(index: int, values: tuple[int, ...]) -> list[Instruction]:
    tests = [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [_argument(index), *tests, (_RETURN, 0, 0, _DENY), (_RETURN, 0, 0, _ALLOW)]


def _is_zero(index: int) -> list[Instruction]:
    low = [_argument(index), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _DENY)]
    high = [_argument(index, high=True), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _DENY)]
    return [*low, *high]
