"""Files written whole or not at all, readable as the umask has it, and tensors with the system's own error.

torch and safetensors report a disk that is full in words about positions in their own code, and safetensors
makes files that only their owner can read. Neither leaves this module. What is in the files is the callers'
business.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.errors import behind
from nanochat.system_errors import naming

if TYPE_CHECKING:
    from torch import Tensor

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path of the same name in a folder beside it, which takes the place of `path` at the end.

    Raises OSError naming `path`, whichever error a library made of it.
    """
    with _folder_beside(path) as folder, naming(path):
        part = Path(folder, path.name)
        part.touch()
        mode = part.stat().st_mode
        try:
            yield part
        except Exception as error:
            refused = _refused(error, part)
            if refused is None:
                raise
            raise OSError(refused.errno, refused.strerror, str(path)) from error
        part.chmod(mode)
        part.replace(path)


def _folder_beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-")
    except OSError as error:
        error.filename = str(path)  # of the two, the one that a reader knows
        raise


def save_tensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as safetensors; equal tensors give equal bytes."""
    from safetensors.torch import save_file

    with whole_file(path) as part:
        save_file(dict(state), part, metadata=metadata)


def save_torch(value: Any, path: Path) -> None:
    """Write a value as `torch.save` does, into an archive that does not hold the file's name."""
    import torch

    with whole_file(path) as part, part.open("wb") as file:
        torch.save(value, file)


def _refused(error: BaseException, part: Path) -> OSError | None:
    """Return the system's own error behind one of a library, or None where there is none."""
    for each in behind(error):
        if isinstance(each, OSError) and each.errno is not None:
            return each
        if number := _OS_ERROR.search(str(each)):
            return OSError(int(number[1]), os.strerror(int(number[1])))
    try:  # torch keeps no number where it opens the file itself: the system will say it again
        with part.open("ab") as file:
            file.write(bytes(1 << 16))
    except OSError as again:
        return again
    return None
