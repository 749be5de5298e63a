"""A user's own conversations: files of `messages` from anywhere, which join what both chat stages train on.

They are named by `tasks.own` and have a folder of their own beside the tasks. What a line must be is decided
by `nanochat.data.chat.messages`, how they are mixed in by `nanochat.data.chat.mixture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from nanochat.config import SourceFile, TasksConfig
from nanochat.data.chat.task_files import OWN, SUFFIXES
from nanochat.data.sources.transfer import fetch, filesystem_of, source_file
from nanochat.errors import ConfigError, DataError
from nanochat.runtime import Runtime
from nanochat.system_errors import reason


def resolve_own(config: TasksConfig) -> TasksConfig:
    """Return the configuration with the user's own files among its `files`, their addresses absolute.

    Raises ConfigError for names that cannot be used, DataError for files that cannot be read.
    """
    names = [PurePosixPath(address).name for address in config.own]
    _require_names(config.own, names)
    addresses, files = [], []
    for address, name in zip(config.own, names, strict=True):
        filesystem, path = filesystem_of(address)
        try:
            info = filesystem.info(path)
        except Exception as error:
            raise DataError(
                f"tasks.own {address}: cannot be read: {reason(error)}",
                hint="check the address and your access to it",
            ) from error
        addresses.append(str(filesystem.unstrip_protocol(path)))
        files.append(source_file(f"{OWN}/{name}", info, "tasks.own"))
    return config.model_copy(update={"own": tuple(addresses), "files": (*config.files, *files)})


def download_own(config: TasksConfig, out: Path, runtime: Runtime) -> None:
    """Fetch the user's own files into `out`; raise DataError naming file and line where one is wrong."""
    from nanochat.data.chat.conversations import check_conversations

    files = [file for file in config.files if is_own(file)]
    for address, file in zip(config.own, files, strict=True):
        target = out / file.path
        fetch(
            address,
            target,
            part_folder=runtime.partial or out.parent,
            size_bytes=file.size_bytes,
            version=file.version,
            check_stop=runtime.raise_if_stopped,
        )
        check_conversations(target, address)


def is_own(file: SourceFile) -> bool:
    """Return whether a resolved file is one of the user's own."""
    return file.path.startswith(f"{OWN}/")


def _require_names(addresses: Sequence[str], names: Sequence[str]) -> None:
    for address, name in zip(addresses, names, strict=True):
        if not name.endswith(SUFFIXES):
            raise ConfigError(
                f"tasks.own names {address!r}, which ends in none of {', '.join(SUFFIXES)}",
                hint="give a file of conversations, one per line",
            )
        stem = PurePosixPath(name).stem
        if sum(PurePosixPath(other).stem == stem for other in names) > 1:
            raise ConfigError(f"tasks.own has two files named {stem}", hint="rename one of them")
