"""Which file of a folder is the validation text: the one that is named, or the one whose name says so.

Never one by its position: with one more file in the folder, that would be another one, the former validation
text would be trained on, and bits per byte would not mean what they meant before.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from nanochat.data.sources.shard_names import shard_name
from nanochat.errors import ConfigError

_SAYS_SO = re.compile(r"([^/=]*=)?(val|valid|validation)([^a-z].*)?")
_SAYS_TEST = re.compile(r"([^/=]*=)?test([-_.].*)?")  # as data sets are split; test1 may be a user's trial
_SHOWN = 5


def is_named_validation(path: str) -> bool:
    """Return whether a file or a folder above it is called `val…`, `valid…` or `validation…`."""
    return any(_SAYS_SO.fullmatch(part) for part in path.lower().split("/"))


def is_named_test(path: str) -> bool:
    """Return whether a file or a folder above it is called `test` or `test-…`, as a data set's test split."""
    return any(_SAYS_TEST.fullmatch(part) for part in path.lower().split("/"))


def validation_file(asked: str | None, paths: Sequence[str], source: str) -> str:
    """Return the path that `corpus.val_shard` names, or with None the only one whose name says so.

    Raises ConfigError where that is not exactly one of the paths.
    """
    if asked is None:
        return _by_its_own_name(paths, source)
    found = [path for path in paths if asked in _callings(path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"corpus.val_shard is {asked!r}, and {_list(found)} of {source} are called so", hint=_pin(found)
        )
    if asked == "last":
        raise ConfigError(
            f"corpus.val_shard is 'last', which is another file of {source} as soon as one is added",
            hint=_pin(paths),
        )
    near = difflib.get_close_matches(asked, [p for path in paths for p in _callings(path)], n=1)
    raise ConfigError(
        f"corpus.val_shard is {asked!r}, which is not one of the {len(paths)} files of {source}",
        hint=f"did you mean {near[0]}?"
        if near
        else _pin([p for p in paths if is_named_validation(p)] or paths),
    )


def _by_its_own_name(paths: Sequence[str], source: str) -> str:
    named = [path for path in paths if is_named_validation(path)]
    if len(named) == 1:
        return named[0]
    if named:
        raise ConfigError(
            f"{_list(named)} of {source} are named as validation text, which is one file",
            hint=f"{_pin(named)}; the others are left out then",
        )
    raise ConfigError(
        f"none of the {len(paths)} files of {source} is named as the validation text",
        hint=f"{_pin(paths)}, which stays it when files are added, or call a file val.parquet",
    )


def _callings(path: str) -> list[str]:
    """Return what a file may be called: by path or file name, with its suffix or without, or as its shard."""
    pure = PurePosixPath(path)
    return [path, str(pure.with_suffix("")), pure.name, pure.stem, shard_name(path)]


def _pin(paths: Sequence[str]) -> str:
    named = str(PurePosixPath(paths[-1]).with_suffix(""))
    return f"use -o {shlex.quote(f'corpus.val_shard={named}')}"


def _list(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
