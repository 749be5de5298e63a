"""What the system refuses is said with path, limit and way out, from real refusals where they can be had."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.errors import FileError
from nanochat.system_errors import explain, is_about_files, naming, words
from tests.support.limits import limited


def broken_link(folder: Path) -> None:
    (folder / "data").symlink_to(folder / "gone")
    (folder / "data" / "shard.parquet").read_bytes()


def link_for_a_home(folder: Path) -> None:
    (folder / "home").symlink_to("gone")
    (folder / "home").mkdir(parents=True, exist_ok=True)


def folder_below_a_file(folder: Path) -> None:
    (folder / "file").write_text("")
    (folder / "file" / "home").mkdir(parents=True)


def long_name(folder: Path) -> None:
    (folder / ("n" * 300)).write_text("")


def missing_folder(folder: Path) -> None:
    (folder / "a" / "b" / "c").write_text("")


def many_open_files(folder: Path) -> None:
    with limited(resource.RLIMIT_NOFILE, 3):
        (folder / "file").write_text("")


def large_file(folder: Path) -> None:
    with limited(resource.RLIMIT_FSIZE, 100), naming(folder / "file"):
        (folder / "file").write_bytes(bytes(1000))


def full_device(folder: Path) -> None:
    with naming(Path("/dev/full")):
        Path("/dev/full").write_bytes(b"x")


def raised(number: int) -> Callable[[Path], None]:
    """What cannot be had from every system, or not as its administrator."""

    def fail(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(folder / "sub" / "file"))

    return fail


REFUSALS = {
    broken_link: ("{0}/data is a link to {0}/gone, which does not exist", "remove the link"),
    link_for_a_home: ("{0}/home is a link to gone, which does not exist", "mounted"),
    folder_below_a_file: ("{0}/file is a file, where a folder is needed", "another place"),
    long_name: ("a name of 300 bytes", "255", "NANOCHAT_HOME"),
    missing_folder: ("{0}/a/b/c: there is no a in {0}",),
    many_open_files: ("too many open files (", "ulimit -n"),
    large_file: ("{0}/file would be larger than", "ulimit -f"),
    full_device: ("no space left for /dev/full", "bytes of its disk are free", "nanochat gc", "--store"),
    raised(errno.ENOSPC): ("no space left for {0}/sub/file", "bytes of its disk are free", "NANOCHAT_HOME"),
    raised(errno.EDQUOT): ("{0}/sub/file: your quota", "nanochat gc"),
    raised(errno.EROFS): ("{0}/sub/file: access denied (Read-only file system)", "NANOCHAT_HOME"),
    raised(errno.EACCES): ("{0}/sub/file: access denied (Permission denied)", "allow access"),
    raised(errno.EIO): ("{0}/sub/file: the disk reports an error", "dmesg"),
    raised(errno.EISDIR): ("{0}/sub/file: Is a directory",),
}


@pytest.mark.parametrize(("cause", "signs"), REFUSALS.items(), ids=range(len(REFUSALS)))
def test_a_refusal_names_the_place_the_limit_and_the_way_out(cause, signs, tmp_path: Path) -> None:
    with pytest.raises(OSError) as refused:
        cause(tmp_path)
    error = explain(refused.value, "stage x failed")
    assert isinstance(error, FileError)
    text = f"{error}\n{error.hint or ''}"
    assert text.startswith("stage x failed: ")
    missing = [sign for sign in signs if sign.format(tmp_path) not in text]
    assert not missing, text
    assert is_about_files(refused.value)


def test_a_path_from_the_working_folder_is_named_from_the_root(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    problem, _ = words(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a/b"))
    assert problem == f"{tmp_path}/a/b: there is no a in {tmp_path}"


def test_a_full_disk_without_a_name_is_looked_for_among_the_places(tmp_path: Path, monkeypatch) -> None:
    free = {tmp_path: 7, Path("/"): 10**9}
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free.get(path, 10**9)))
    problem, _ = words(OSError(errno.ENOSPC, "No space left on device"), (Path("/"), tmp_path / "scratch"))
    assert problem.startswith(f"no space left for {tmp_path}: 7 of ")


def test_what_a_network_says_is_not_about_files() -> None:
    reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    assert not is_about_files(reset) and not is_about_files(ValueError("x"))
    assert words(reset) == ("ConnectionResetError: [Errno 104] Connection reset by peer", None)
