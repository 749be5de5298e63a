"""Pickles from elsewhere, read as data: what a pickle names is looked up in a short list and never imported.

A pickle is a program that may call anything it can name. Here each name it may use is given by the caller,
together with a stand-in that only keeps what it is given; any other name ends the reading. What the stand-ins
mean is the caller's business.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nanochat.errors import DataError

_CODE = "the file holds code, which is never run: get it from somebody you trust, in a safe form"
_OTHER_TENSORS = "only plain tensors are read, and nothing is run: save the state_dict in bfloat16"
StandIns = Mapping[tuple[str, str], Any]


class _Refused(Exception):
    """The pickle names something that is not on the list."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, stand_ins: StandIns, persistent: Callable[[Any], Any] | None) -> None:
        super().__init__(io.BytesIO(data))
        self._stand_ins = stand_ins
        self._persistent = persistent

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._stand_ins[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise _Refused("an object outside of the file")
        return self._persistent(pid)


def load(
    data: bytes, source: Path, stand_ins: StandIns, persistent: Callable[[Any], Any] | None = None
) -> Any:
    """Return what a pickle describes; `persistent` resolves references to objects outside of it.

    Raises:
        DataError: it names what is not among `stand_ins`, or is not a whole pickle; `source` is named.
    """
    try:
        _refuse_large_memo(data)
        return _Unpickler(data, stand_ins, persistent).load()
    except DataError:
        raise
    except _Refused as error:
        names = sorted(f"{module}.{name}" for module, name in stand_ins)
        allowed = f"{names[0]} is" if len(names) == 1 else f"{', '.join(names[:3])} and the like are"
        raise DataError(
            f"{source}: the pickle asks for {error}; only {allowed} allowed",
            hint=_OTHER_TENSORS if str(error).startswith("torch.") else _CODE,
        ) from None
    except Exception as error:  # a damaged pickle may raise nearly everything
        raise DataError(
            f"{source}: not a whole pickle: {type(error).__name__}: {error}",
            hint="the file is cut off or damaged: fetch it again",
        ) from error


def _refuse_large_memo(data: bytes) -> None:
    """Refuse slots and lengths beyond the pickle's own size, for which memory would be set aside."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name.endswith("BINPUT") and isinstance(argument, int) and argument > len(data):
            raise ValueError(f"memo slot {argument} in {len(data)} bytes")
