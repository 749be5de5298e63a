"""macOS: the system's own sandbox, entered by the process itself.

The rules are those that `sandbox-exec` takes, given to the function behind it. The project's tests read the
text of the rules; entering the sandbox has not been run by them, since they run on Linux.
"""

from __future__ import annotations

import ctypes

_ALLOWED = "(allow sysctl-read)"  # what Python asks of the system: the number of processors


def profile(folders: list[str], *, program: bool) -> str:
    """Return the rules: read these folders and nothing else; the checker may also end the program."""
    quoted = [folder.replace("\\", "\\\\").replace('"', '\\"') for folder in folders]
    reads = " ".join(f'(subpath "{folder}")' for folder in quoted)
    return "\n".join(
        [
            "(version 1)",
            "(deny default)",
            _ALLOWED,
            *([] if program else ["(allow signal)"]),
            "(allow file-read-metadata)",
            f'(allow file-read* (literal "/dev/null") {reads} (subpath "/usr/lib") (subpath "/System"))',
        ]
    )


def confine(folders: list[str], *, program: bool) -> None:
    """Enter the sandbox for ever; raises OSError where the system refuses."""
    error = ctypes.c_char_p()
    library = ctypes.CDLL("/usr/lib/libSystem.dylib")
    if library.sandbox_init(
        profile(folders, program=program).encode(), ctypes.c_uint64(0), ctypes.byref(error)
    ):
        raise OSError(f"sandbox_init: {(error.value or b'').decode(errors='replace')}")
