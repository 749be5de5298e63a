"""The stage `tasks`: where chat and benchmark data are, and fetching or generating them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nanochat.config import SourceFile, TasksConfig, ToyWorldConfig
from nanochat.data.chat.task_files import CORE, SUFFIXES
from nanochat.data.sources.corpus import TOY
from nanochat.data.sources.hub import download_hub, is_hub, resolve_hub
from nanochat.data.sources.own_conversations import download_own, is_own, resolve_own
from nanochat.data.sources.source_folder import list_folder
from nanochat.data.sources.transfer import fetch, source_file
from nanochat.errors import DataError
from nanochat.runtime import Runtime

logger = logging.getLogger(__name__)
_FILES_AT_ONCE = 8  # of one source, which must not be asked for everything at once
_TASK_FOLDERS = ("tasks", "conversations", CORE)


def resolve_tasks(config: TasksConfig) -> TasksConfig:
    """Return the configuration with the files of its source (a toy source has none) and the user's own.

    Raises DataError where the source cannot be read or holds no task files.
    """
    return resolve_own(_resolve_source(config))


def _resolve_source(config: TasksConfig) -> TasksConfig:
    if config.source == TOY:
        return config.model_copy(update={"toy": config.toy or ToyWorldConfig(), "files": ()})
    if is_hub(config.source):
        return resolve_hub(config)
    entries = list_folder("tasks.source", config.source).entries
    shown = {path: info for path, info in entries.items() if not re.search(r"(^|/)\.", path)}  # not hidden
    taken = {path: info for path, info in shown.items() if path.split("/")[0] in _TASK_FOLDERS}
    files = [source_file(path, info, "tasks.source") for path, info in taken.items()]
    beside = [path for path in shown if path not in taken and path.endswith(SUFFIXES)]
    if not files:
        raise DataError(
            f"tasks.source {config.source}: no files below {', '.join(_TASK_FOLDERS)}",
            hint="give the folder that holds these three, or -o tasks.source=hub, or -o tasks.source=toy",
        )
    if beside:
        names = ", ".join(beside[:3]) + (f" and {len(beside) - 3} more" if len(beside) > 3 else "")
        where = ", ".join(_TASK_FOLDERS)
        logger.warning("tasks.source %s: not used, since not below %s: %s", config.source, where, names)
    return config.model_copy(update={"toy": None, "files": tuple(files)})


def download_tasks(
    config: TasksConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Fetch or generate `tasks/`, `conversations/` and `core/`, and fetch the user's `own/`."""
    from nanochat.data.toy_world.files import write_tasks

    if config.toy is not None:
        write_tasks(config.toy, out)
    elif is_hub(config.source):
        download_hub(config, out, runtime)
    else:

        def copy(file: SourceFile) -> None:
            fetch(
                f"{config.source.rstrip('/')}/{file.path}",
                out / file.path,
                part_folder=runtime.partial or out.parent,
                size_bytes=file.size_bytes,
                version=file.version,
                check_stop=runtime.raise_if_stopped,
            )

        files = [file for file in config.files if not is_own(file)]
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            for done, _ in enumerate(pool.map(copy, files), 1):
                runtime.tracker.log({}, step=done, total_steps=len(files))
    download_own(config, out, runtime)
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}
