"""The public data sets of the published recipes: their names on the hub, and how they come into our layout.

Each split of a data set becomes one parquet file where `nanochat.data.chat.tasks` looks for it, and the CORE
bundle (a zip file) the folder `core/`. A list of words for the spelling tasks and conversations about the
model's identity join them where a recipe gives their addresses. A plan needs no network: a file is
identified by its data set, split and revision; its parts, with their sizes and hashes, are looked up when it
is downloaded.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nanochat.config import SourceFile, TasksConfig
from nanochat.config.public_data import SMOLTALK
from nanochat.data.chat.spelling import read_words
from nanochat.data.chat.task_files import CORE, CORE_LIST, CORE_PARTS, task_file
from nanochat.data.chat.task_table import TASKS, WORDS
from nanochat.data.sources.hub_client import (
    HubFile,
    HubListing,
    file_address,
    hub_address,
    list_data_set,
    require_online,
)
from nanochat.data.sources.transfer import fetch
from nanochat.errors import ConfigError, DataError
from nanochat.file_digest import sha256_of
from nanochat.runtime import Runtime

logger = logging.getLogger(__name__)

NAME = "hub"
IDENTITY = f"{task_file('identity', 'train')}.jsonl"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One split of a public data set."""

    task: str  # as mixtures call it
    split: str
    path: str  # in our layout
    repo: str
    place: str  # config/split on the hub
    rows: int  # when the recipes were published


def _data_set(task: str, split: str, repo: str, place: str, rows: int) -> DataSet:
    path = f"{task_file(task, split)}.parquet"
    return DataSet(task=task, split=split, path=path, repo=repo, place=place, rows=rows)


DATA_SETS = (
    *(
        _data_set(task.name, name, task.repo, split.hub, split.rows)
        for task in TASKS.values()
        if task.repo
        for name, split in task.splits.items()
    ),
    _data_set("smoltalk", "train", SMOLTALK, "default/train", 460_341),
    # Held-out conversations are a task of their own; upstream mentions 24K rows.
    _data_set("test", "train", SMOLTALK, "default/test", 24_000),
)


def is_hub(source: str) -> bool:
    """Return whether `tasks.source` means the public data sets."""
    return source == NAME or source.startswith(f"{NAME}:")


def published_rows(task: str, split: str) -> int | None:
    """Return how many rows a data set had when the recipes were published; None for others."""
    return next((d.rows for d in DATA_SETS if (d.task, d.split) == (task, split)), None)


def hub_paths(config: TasksConfig) -> list[str]:
    """Return where the hub's files are in our layout, without the CORE bundle."""
    return [d.path for d in DATA_SETS] + [extra.path for extra in _extras(config)]


def resolve_hub(config: TasksConfig) -> TasksConfig:
    """Return the configuration with the hub's files, without network; raise ConfigError for odd addresses."""
    _mirror(config.source)
    if not config.core_url.endswith(".zip"):
        raise ConfigError(
            f"tasks.core_url is {config.core_url}, which does not end in .zip",
            hint="give the address of the CORE bundle's zip file",
        )
    files = [SourceFile(path=d.path, version=f"{d.repo}/{d.place}@{config.revision}") for d in DATA_SETS]
    files.append(SourceFile(path=CORE, version=PurePosixPath(config.core_url).name))
    files += [SourceFile(path=extra.path, version=PurePosixPath(extra.url).name) for extra in _extras(config)]
    return config.model_copy(update={"toy": None, "files": tuple(files)})


def download_hub(config: TasksConfig, out: Path, runtime: Runtime) -> None:
    """Fetch the data sets, the CORE bundle and what joins them; raise DataError naming the address."""
    require_online(f"tasks.source {config.source}")
    if runtime.partial is None:
        with tempfile.TemporaryDirectory(prefix="nanochat-hub-", dir=out.parent) as folder:
            _download_all(config, out, Path(folder), runtime)
    else:
        _download_all(config, out, runtime.partial, runtime)


def _download_all(config: TasksConfig, out: Path, parts: Path, runtime: Runtime) -> None:
    """Keep what was fetched in `parts`, so that a later attempt goes on from there."""
    extras = _extras(config)
    total = len(DATA_SETS) + 1 + len(extras)
    hub = _mirror(config.source) or hub_address()
    repos = sorted({d.repo for d in DATA_SETS})
    with ThreadPoolExecutor(max(runtime.workers, 1)) as pool:
        answers = pool.map(
            lambda repo: list_data_set(repo, config.revision, hub, runtime.raise_if_stopped), repos
        )
        listings = dict(zip(repos, answers, strict=True))
        fetched = pool.map(
            lambda d: _download(d, listings[d.repo], hub, out / d.path, parts, runtime), DATA_SETS
        )
        for done, _ in enumerate(fetched, 1):
            runtime.tracker.log({}, step=done, total_steps=total)
    bundle = parts / "core-bundle.zip"
    fetch(config.core_url, bundle, part_folder=parts, check_stop=runtime.raise_if_stopped)
    _unpack_core(bundle, out / CORE, config.core_url)
    runtime.tracker.log({}, step=len(DATA_SETS) + 1, total_steps=total)
    for done, extra in enumerate(extras, len(DATA_SETS) + 2):
        fetch(extra.url, out / extra.path, part_folder=parts, check_stop=runtime.raise_if_stopped)
        extra.check(out / extra.path, extra.url)
        runtime.tracker.log({}, step=done, total_steps=total)


def _download(
    data_set: DataSet, listing: HubListing, hub: str, target: Path, folder: Path, runtime: Runtime
) -> None:
    page = f"{hub}/datasets/{data_set.repo}/tree/{listing.commit}/{data_set.place}"
    fetched = []
    for part in _parquet_parts(data_set, listing, page):
        name = PurePosixPath(part.path).name
        path = folder / f"{data_set.task}-{data_set.split}-{part.mark[:16]}-{name}"
        url = file_address(data_set.repo, part.path, listing.commit, hub)
        if not path.exists():
            fetch(
                url,
                path,
                part_folder=folder,
                size_bytes=part.size_bytes,
                version=part.mark,
                hub=hub,
                check_stop=runtime.raise_if_stopped,
            )
        _check(path, part, url)
        fetched.append(path)
    rows = _join(fetched, target, page)
    if rows != data_set.rows:
        logger.info("%s/%s has %d rows, not %d", data_set.repo, data_set.place, rows, data_set.rows)


@dataclass(frozen=True)
class _Extra:
    """A file of its own address that joins the data sets."""

    path: str  # in our layout
    url: str
    check: Callable[[Path, str], object]  # raises DataError naming the address


def _extras(config: TasksConfig) -> list[_Extra]:
    extras = []
    if config.words_url:
        extras.append(_Extra(WORDS, config.words_url, read_words))
    if config.identity_url:
        extras.append(_Extra(IDENTITY, config.identity_url, _check_conversations))
    return extras


def _check_conversations(path: Path, url: str) -> None:
    from nanochat.data.chat.conversations import check_conversations  # a plan needs no pyarrow

    check_conversations(path, url)


def _parquet_parts(data_set: DataSet, listing: HubListing, page: str) -> list[HubFile]:
    paths = ((file, PurePosixPath(file.path)) for file in listing.files)
    found = [f for f, path in paths if str(path.parent) == data_set.place and path.suffix == ".parquet"]
    if not found:
        raise DataError(f"{page}: no parquet files", hint="is tasks.revision right?")
    return sorted(found, key=lambda file: file.path)


def _check(path: Path, part: HubFile, url: str) -> None:
    if part.sha256 is None:
        return
    found = sha256_of(path)
    if found != part.sha256:
        path.unlink()
        raise DataError(
            f"{url}: sha256 is {found[:12]}…, but the hub lists {part.sha256[:12]}…",
            hint="the transfer was damaged; run again",
        )


def _join(parts: Sequence[Path], target: Path, source: str) -> int:
    """Make one parquet file of several, row group by row group; return its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        rows = sum(int(pq.read_metadata(part).num_rows) for part in parts)
        if len(parts) == 1:
            shutil.copyfile(parts[0], target)
            return rows
        with pq.ParquetWriter(target, pq.read_schema(parts[0]), compression="zstd") as writer:
            for part in parts:
                with pq.ParquetFile(part) as file:
                    for group in range(file.num_row_groups):
                        writer.write_table(file.read_row_group(group))
    except (pa.ArrowInvalid, ValueError, OSError) as error:
        raise DataError(f"{source}: not readable parquet files of one form: {error}") from error
    return rows


def _unpack_core(bundle: Path, target: Path, url: str) -> None:
    try:
        with zipfile.ZipFile(bundle) as archive:
            for info, path in _members(archive):
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (target / path).write_bytes(archive.read(info))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{url}: not a readable zip file: {error}", hint="is tasks.core_url right?"
        ) from error
    if not (target / CORE_LIST).is_file():
        raise DataError(f"{url}: no {CORE_LIST} in it", hint="is tasks.core_url the CORE bundle?")


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Yield the bundle's own files with their paths below its one top folder; nothing outside of it."""
    for info in archive.infolist():
        path = PurePosixPath(*PurePosixPath(info.filename).parts[1:])
        if info.is_dir() or not path.parts or ".." in path.parts or path.parts[0] not in CORE_PARTS:
            continue
        yield info, path


def _mirror(source: str) -> str | None:
    """Return the address of the mirror that the recipe names, if it does."""
    mirror = source.removeprefix(NAME).removeprefix(":").rstrip("/")
    if mirror and not mirror.startswith(("http://", "https://")):
        raise ConfigError(
            f"tasks.source is {source!r}; what follows '{NAME}:' is not a web address",
            hint=f"use {NAME}, or {NAME}:https://host of a mirror",
        )
    return mirror or None
