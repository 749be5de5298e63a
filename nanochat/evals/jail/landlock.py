"""Landlock: which files a process may read, and that it may write none.

Source: the kernel's Documentation/userspace-api/landlock.rst. Rights that the running kernel does not know
are left out; what they would forbid (truncating, network, signals) the seccomp filter forbids as well.
"""

from __future__ import annotations

import os
import struct

from nanochat.evals.jail.system_calls import call

READ_FILE, READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}  # by version; later ones as the last
_NETWORK = 0b11  # bind and connect with TCP, since version 4
_SCOPES = 0b11  # abstract sockets and signals, since version 6
_VERSION_FLAG, _PATH_BENEATH = 1, 1


def version() -> int:
    """Return the version of Landlock in this kernel; raises OSError where it has none."""
    return call("landlock_create_ruleset", None, 0, _VERSION_FLAG)


def restrict(rules: dict[str, int], *, scoped: bool) -> None:
    """Give this process the named rights on files and folders, and no others; `scoped`: no signals out."""
    known = version()
    rights = _FILE_RIGHTS[min(known, max(_FILE_RIGHTS))]
    attributes = struct.pack("=QQQ", rights, _NETWORK * (known >= 4), _SCOPES * (scoped and known >= 6))
    ruleset = call("landlock_create_ruleset", attributes, len(attributes), 0)
    for path, allowed in rules.items():
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # gone since it was listed
        if not os.path.isdir(path):
            allowed &= READ_FILE
        call("landlock_add_rule", ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, fd), 0)
        os.close(fd)
    call("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)
