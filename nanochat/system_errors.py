"""What the operating system refused, in words that name the file, the limit and the way out.

An `OSError` travels as it is, since who catches it may try again or take it for an answer; where it would
reach a user, and nowhere else, it becomes a `FileError` here. Files only: what a network says is explained
by those who asked.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nanochat.errors import FileError

FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_ABOUT_OPEN_FILES = {errno.EMFILE, errno.ENFILE}
_NEXT_TO_NOTHING = 1 << 20
_ROOM = "room_on_its_disk"  # of an error about a full disk: what was left when it was raised
_FREE = (
    "free space there (`nanochat gc` removes what no kept model needs), or choose another disk with"
    " NANOCHAT_HOME or --store; the same command then continues"
)
_ALLOW = "allow access to it, or choose another place with NANOCHAT_HOME or --store"
_LINK = "correct or remove the link; is the disk that it leads to mounted?"
_LONG = "choose a shorter path: set NANOCHAT_HOME to a folder near the root of the disk"
_FILES = "raise the limit (ulimit -n 4096), or use fewer --workers"
_DISK = "look into the system's log (dmesg) and check the disk; finished stages are kept"
_TEMPORARY = "set TMPDIR to a folder that can be written"


def explain(error: OSError, what: str = "", places: Sequence[Path] = ()) -> FileError:
    """Return the error that a user should read instead of `error`; `what` says what failed.

    An error that names no file is taken to be about the fullest disk of `places` and the temporary folder.
    """
    problem, hint = words(error, places)
    return FileError(f"{what}: {problem}" if what else problem, hint=hint)


def words(error: OSError, places: Sequence[Path] = ()) -> tuple[str, str | None]:
    """Return what is wrong, with path and limit, and the way out if one is known."""
    path = _named(error)
    number = error.errno or 0
    if number == errno.EDQUOT:
        return f"no space left for {path}: your quota on its disk is used up", _FREE
    if number == errno.ENOSPC:
        path = path or _fullest(places)
        return f"no space left for {path}: {getattr(error, _ROOM, None) or _room(path)}", _FREE
    if number == errno.ENOENT and path is None and "temporary directory" in str(error):
        return str(error.strerror), _TEMPORARY
    if number in _ABOUT_OPEN_FILES:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many open files ({limit} at most){_of(path)}", _FILES
    link = _broken_link(path) if path else None
    if link:
        return f"{link} is a link to {link.readlink()}, which does not exist", _LINK
    if path and number in _ABOUT_PATHS:
        return _ABOUT_PATHS[number](path, error.strerror or type(error).__name__)
    return (f"{path}: {error.strerror or error}" if path else f"{type(error).__name__}: {error}"), None


def reason(error: BaseException) -> str:
    """Return why a source cannot be read, for a message that names it."""
    if isinstance(error, OSError) and is_about_files(error):
        return words(error)[0]
    return f"{type(error).__name__}: {error}"


def is_about_files(error: BaseException) -> bool:
    """Return whether the system refuses a file here, rather than a network or a service elsewhere."""
    return isinstance(error, OSError) and (
        _named(error) is not None or error.errno in FULL | _ABOUT_OPEN_FILES
    )


def full_disk(path: Path) -> tuple[str, str] | None:
    """Return problem and way out where the disk of `path` has next to no space; None if it has some."""
    if shutil.disk_usage(_nearest(path)).free >= _NEXT_TO_NOTHING:
        return None
    return f"no space left for {path}: {_room(path)}", _FREE


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path to an `OSError` without one, as writing to an open file raises, and the disk's room.

    Whoever removes what was half written makes room again, before the error is explained.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        if error.errno == errno.ENOSPC and not hasattr(error, _ROOM):
            setattr(error, _ROOM, _room(path))
        raise


def _refused(path: Path, reason: str) -> tuple[str, str]:
    return f"{path}: access denied ({reason})", _ALLOW


def _missing(path: Path, reason: str) -> tuple[str, None]:
    path = path.absolute()
    there = _nearest(path.parent)
    missing = path if there == path.parent else path.relative_to(there).parts[0]
    return (
        f"{path} does not exist" if missing == path else f"{path}: there is no {missing} in {there}"
    ), None


def _not_a_folder(path: Path, reason: str) -> tuple[str, str | None]:
    there = _nearest(path)
    if there.is_dir():
        return f"{path}: {reason}", None
    return f"{there} is a file, where a folder is needed", "move it away, or choose another place"


def _too_long(path: Path, reason: str) -> tuple[str, str]:
    longest = max(path.parts, key=lambda part: len(os.fsencode(part)))
    shown = f"{longest[:40]}…" if len(longest) > 40 else longest
    return (
        f"{shown}: a name of {len(os.fsencode(longest)):,} bytes in a path of {len(os.fsencode(path)):,};"
        " at most 255 and 4,095 are possible on most disks",
        _LONG,
    )


def _broken_disk(path: Path, reason: str) -> tuple[str, str]:
    return f"{path}: the disk reports an error ({reason})", _DISK


def _too_large(path: Path, reason: str) -> tuple[str, str]:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    allowed = (
        "the disk allows" if limit == resource.RLIM_INFINITY else f"{limit:,} bytes that ulimit -f allows"
    )
    return f"{path} would be larger than {allowed}", "raise the limit (ulimit -f), or choose another disk"


_ABOUT_PATHS: dict[int, Callable[[Path, str], tuple[str, str | None]]] = {
    **dict.fromkeys(REFUSED, _refused),
    errno.ENOENT: _missing,
    errno.ENOTDIR: _not_a_folder,
    errno.EEXIST: _not_a_folder,
    errno.ENAMETOOLONG: _too_long,
    errno.EIO: _broken_disk,
    errno.EFBIG: _too_large,
}


def _room(path: Path) -> str:
    """Return what is left on the disk of a path: bytes or, where those are not what is lacking, files."""
    there = _nearest(path)
    disk, files = shutil.disk_usage(there), os.statvfs(there)
    if files.f_files and not files.f_favail:
        return f"all {files.f_files:,} files that its disk can hold are there"
    return f"{disk.free:,} of {disk.total:,} bytes of its disk are free"


def _named(error: OSError) -> Path | None:
    """Return the path that an error carries; that of an open file has a number instead."""
    name = error.filename if error.filename2 is None else error.filename2
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes | os.PathLike) and name else None


def _of(path: Path | None) -> str:
    return f", at {path}" if path else ""


def _fullest(places: Sequence[Path]) -> Path:
    there = [_nearest(place) for place in (*places, Path(tempfile.gettempdir()))]
    return min(there, key=lambda place: shutil.disk_usage(place).free)


def _nearest(path: Path) -> Path:
    """Return the path itself or the nearest folder above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))


def _broken_link(path: Path) -> Path | None:
    above = (path, *path.parents)
    return next((p for p in above if os.path.islink(p) and not os.path.exists(p)), None)  # noqa: PTH110, PTH114
