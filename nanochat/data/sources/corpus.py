"""Where text and tasks come from: resolves a source to named files, and downloads or generates them.

A source is `toy` (generated), a folder or fsspec URL of files (listed once, when a run is planned), for text
a URL with `{index:05d}` and usually `{revision}` in it, or for tasks the `hub`: these two need no listing.
Files are identified by size and version, so that a changed source is a changed key.
How bytes travel is `nanochat.data.sources.transfer`; what is in the toy world is `nanochat.data.toy_world`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

from nanochat.config import CorpusConfig, ShardConfig
from nanochat.data.sources.held_out import is_named_test, is_named_validation, validation_file
from nanochat.data.sources.shard_names import distinct_names, shard_name, with_ending
from nanochat.data.sources.source_folder import list_folder
from nanochat.data.sources.text_files import NotUsed, text_files
from nanochat.data.sources.transfer import fetch, version_of
from nanochat.errors import ConfigError, DataError
from nanochat.runtime import Runtime

TOY = "toy"
_TOY_TRAIN_SHARDS = 2
_TOY_VALIDATION = 2  # also where more shards are trained on, so that bits per byte stay comparable
_FILLED_IN = re.compile(r"revision:|index:(0?[0-9]{1,2})?[dxX]?")  # what `str.format` may be given
_TEST = "named as test text"
_ALSO_VALIDATION = "named as validation text, but another file is it"


@dataclass(frozen=True)
class Corpus:
    """The text: shards to train on in order, one to validate on, and what of a folder is left out."""

    train: tuple[ShardConfig, ...]
    validation: ShardConfig
    left_out: tuple[NotUsed, ...] = ()
    listed: bool = False  # whether the source is a folder, whose files were looked at


def resolve_corpus(config: CorpusConfig) -> Corpus:
    """Return the shards of a source and what is left out.

    Raises ConfigError where the settings do not fit the source, DataError where it cannot be read.
    """
    if config.source == TOY:
        train, val = _numbers(config.train_shards or _TOY_TRAIN_SHARDS, config.val_shard or _TOY_VALIDATION)
        *shards, held_out = (
            ShardConfig(name=f"shard_{i:05d}", index=i, toy=config.toy) for i in (*train, val)
        )
        return Corpus(tuple(shards), held_out)
    if "{index" in config.source:
        return _resolve_template(config)
    return _resolve_folder(config)


def download_shard(
    config: ShardConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Fetch or generate one text shard: `text.parquet` and its counts in `stats.json`."""
    from nanochat.data.sources.text_column import take_text
    from nanochat.data.toy_world.files import write_text_shard

    path = out / "text.parquet"
    said: dict[str, str] = {}
    if config.toy is not None:
        write_text_shard(config.toy, config.index, path)
    elif config.url is None:
        raise ConfigError(f"shard {config.name} has neither a URL nor a toy world")
    else:
        said = fetch(
            config.url,
            path,
            part_folder=runtime.partial or out.parent,
            size_bytes=config.size_bytes,
            version=config.version,
            check_stop=runtime.raise_if_stopped,
            report=_megabytes(runtime),
        ).to_json()
    counts = take_text(path, config.url or config.name)
    stats = counts.of_all()
    (out / "stats.json").write_text(json.dumps(stats, indent=1) + "\n")
    return {**stats, **counts.of_empty(), "file_bytes": path.stat().st_size, **said}


def _megabytes(runtime: Runtime) -> Callable[[int, int], None]:
    """Return a function that tracks how many megabytes have arrived and how fast they come."""
    began: tuple[float, int] | None = None

    def report(done: int, total: int) -> None:
        nonlocal began
        now = time.monotonic()
        if began is None:  # an earlier attempt's bytes do not count
            began = (now, done)
            return
        rate = (done - began[1]) / 1e6 / max(now - began[0], 1e-9)
        step, total_steps = -(-done // 1_000_000), -(-total // 1_000_000)
        runtime.tracker.log({"throughput/mb_per_s": rate}, step=step, total_steps=total_steps)

    return report


def _resolve_template(config: CorpusConfig) -> Corpus:
    if "{revision" in config.source and not config.revision:
        raise ConfigError(
            f"corpus.source {config.source} needs corpus.revision", hint="use -o corpus.revision=main"
        )
    if config.train_shards is None:
        raise ConfigError(
            f"corpus.source {config.source} cannot be listed, and corpus.train_shards is not set",
            hint="say how many shards to train on: -o corpus.train_shards=8",
        )
    numbers, held_out = _numbers(config.train_shards, config.val_shard)
    *train, val = _numbered(config, [*numbers, held_out])
    return Corpus(tuple(train), val)


def _numbers(train_shards: int, val_shard: str | int | None) -> tuple[list[int], int]:
    """Return the numbers of the training shards, the first that are free, and of the validation shard."""
    if not str(val_shard).isdecimal():
        raise ConfigError(
            f"corpus.val_shard is {val_shard!r}; a numbered source needs the number of a shard",
            hint=f"use -o corpus.val_shard={train_shards}",
        )
    held_out = int(str(val_shard))
    return [i for i in range(train_shards + 1) if i != held_out][:train_shards], held_out


def _numbered(config: CorpusConfig, numbers: Sequence[int]) -> list[ShardConfig]:
    """Return the shards of these numbers, named by file, and by file and number where that is not enough."""
    urls = [_filled_in(config, number) for number in numbers]
    _require_distinct_addresses(config.source, numbers, urls)
    names = [shard_name(PurePosixPath(re.split("[?#]", url)[0]).name) for url in urls]
    if len({name.lower() for name in names}) < len(names):
        names = [with_ending(name, f"{number:05d}") for name, number in zip(names, numbers, strict=True)]
    return [
        ShardConfig(name=name, index=number, version=config.revision, url=url)
        for name, number, url in zip(names, numbers, urls, strict=True)
    ]


def _filled_in(config: CorpusConfig, index: int) -> str:
    try:
        for _, field, how, converted in Formatter().parse(config.source):
            if field is not None and (converted or not _FILLED_IN.fullmatch(f"{field}:{how}")):
                raise ValueError(f"not {field or 'an empty one'}")
        return config.source.format(index=index, revision=config.revision)
    except ValueError as error:
        raise ConfigError(
            f"corpus.source {config.source}: only {{index:05d}} and {{revision}} are filled in ({error})"
        ) from error


def _require_distinct_addresses(source: str, numbers: Sequence[int], urls: Sequence[str]) -> None:
    """Raise ConfigError if two shards would be the same file: validation would be text that is trained on."""
    first: dict[str, int] = {}
    for number, url in zip(numbers, urls, strict=True):
        address = url.split("#")[0] if url.startswith("http") else url  # no server sees what is after a #
        if address in first:
            raise ConfigError(
                f"corpus.source {source}: shards {first[address]} and {number} have the same address, {url}",
                hint="put {index:05d} into the path, where the addresses of the shards differ",
            )
        first[address] = number


def _resolve_folder(config: CorpusConfig) -> Corpus:
    listing = list_folder("corpus.source", config.source)
    files, left_out = text_files(listing)
    _require_two(config.source, files, left_out, len(listing.entries))
    shards = {
        path: ShardConfig(
            name=name,
            size_bytes=info["size"],
            version=version_of(info),
            url=str(listing.filesystem.unstrip_protocol(info["name"])),
        )
        for (path, info), name in zip(files.items(), distinct_names(list(files)), strict=True)
    }
    held_out = validation_file(config.val_shard, list(files), config.source)
    others = [path for path in files if path != held_out and is_named_validation(path)]
    tests = [path for path in files if path not in (held_out, *others) and is_named_test(path)]
    train = [path for path in files if path not in (held_out, *others, *tests)]
    if not train:
        raise ConfigError(
            f"corpus.source {config.source}: no file to train on among {', '.join(list(files)[:5])}",
            hint="files called val… or test… are not trained on: rename what is training text",
        )
    wanted = config.train_shards or len(train)
    if wanted > len(train):
        raise ConfigError(
            f"corpus.train_shards is {wanted}, but {config.source} has {len(train)}"
            " beside the validation shard",
            hint=f"use -o corpus.train_shards={len(train)}",
        )
    unused = {_ALSO_VALIDATION: others, _TEST: tests}
    unused |= {f"after the first {wanted} (corpus.train_shards)": train[wanted:]}
    left_out += [NotUsed(why, tuple(paths)) for why, paths in unused.items() if paths]
    return Corpus(
        tuple(shards[path] for path in train[:wanted]), shards[held_out], tuple(left_out), listed=True
    )


def _require_two(source: str, files: Collection[str], left_out: Sequence[NotUsed], entries: int) -> None:
    """Raise an error unless there is a file to train on and one to validate on; say how to get there."""
    convert = next((each.convert for each in left_out if each.convert), None)
    if not files:
        found = ", ".join(f"{len(each.paths)} {each.why}" for each in left_out) or "it is empty"
        raise DataError(
            f"corpus.source {source}: no parquet files among {entries} entries: {found}",
            hint=f"convert them: {convert}" if convert else "give the folder that holds the .parquet files",
        )
    if len(files) == 1:
        other = f"convert others: {convert}" if convert else "cut this one in two"
        raise ConfigError(
            f"corpus.source {source} has only one parquet file; training and validation would overlap",
            hint=f"add a second file, or {other}",
        )
