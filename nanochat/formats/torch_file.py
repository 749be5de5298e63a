"""Weights in a `.pt` file from elsewhere, read as data: nothing that the file names is ever run.

A `.pt` file is a zip archive of raw tensor bytes and a pickle that describes them. The pickle is first read
into plain descriptions, which are checked against the archive: names, types, shapes, sizes, checksums. Only
then does torch map the bytes. Not here: which tensors a model needs (`nanochat.model.checkpoint`).
"""

from __future__ import annotations

import math
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nanochat.errors import DataError
from nanochat.formats import restricted_pickle
from nanochat.formats.published import other_type

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_PICKLE = 64 * 2**20  # a thousand tensors take about a hundred kibibytes
_FLOATS = {"FloatStorage": 4, "BFloat16Storage": 2, "HalfStorage": 2, "DoubleStorage": 8}
_OTHERS = (
    *("LongStorage", "IntStorage", "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage"),
    *("ComplexFloatStorage", "ComplexDoubleStorage"),
)
_DAMAGED = "the file is cut off or damaged: fetch it again"


# Types without a storage class of their own: named in the error, not read.
_NEWER_TYPES = (
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("float4_e2m1fn_x2", "uint16", "uint32", "uint64"),
)


class _Type(NamedTuple):
    """A type of numbers that the file names."""

    name: str


class _Storage(NamedTuple):
    kind: str  # such as FloatStorage
    key: str
    numel: int


class _Described(NamedTuple):
    """A tensor as the pickle describes it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a `.pt` file, mapped from the file, of whatever float type.

    Raises DataError naming the file and what is wrong with it.
    """
    _refuse_other_kinds(path)
    try:
        with zipfile.ZipFile(path) as archive:
            described = _describe(path, archive)
            _check(path, archive, described)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(f"{path} is not a whole torch archive: {error}", hint=_DAMAGED) from error
    if damaged:
        raise DataError(f"{path}: {damaged} in it does not match its checksum", hint=_DAMAGED)
    return _map(path)


def _refuse_other_kinds(path: Path) -> None:
    """Raise DataError with what the file is, where it is not a zip archive."""
    if not path.is_file():
        raise DataError(f"{path} is not a regular file")
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"PK\x03\x04"):
        return
    if not start:
        what, hint = "is empty", _DAMAGED
    elif start.startswith(b"version https://git-lfs"):
        what, hint = "is a Git LFS pointer, not the weights", "fetch the large files: git lfs pull"
    elif start.startswith(b"\x80"):
        what = "is a bare pickle (torch's form before version 1.6), which may hold code and is not read"
        hint = "load it where you trust it and save it again with a current torch.save"
    elif start[8:9] == b"{":
        what, hint = "is a safetensors file by its content", "name it model.safetensors, with its config.json"
    else:
        what, hint = f"is not a torch archive: it begins with {start[:8]!r}", _DAMAGED
    raise DataError(f"{path} {what}", hint=hint)


def _describe(path: Path, archive: zipfile.ZipFile) -> dict[str, _Described]:
    names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise DataError(
            f"{path} is a zip archive, but not one that torch.save wrote", hint="give a model_<step>.pt"
        )
    root = names[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive.namelist():
        raise DataError(f"{path} is a TorchScript program, not weights", hint="save its state_dict instead")
    if archive.getinfo(names[0]).file_size > _LARGEST_PICKLE:
        raise DataError(f"{path}: its description is larger than {_LARGEST_PICKLE:,} bytes")
    state = restricted_pickle.load(archive.read(names[0]), path, _stand_ins(), _storage)
    if not isinstance(state, dict) or not state:
        raise DataError(f"{path} holds {_kind(state)}, not named tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Described):
            hint = "only the weights are needed: save model.state_dict()"
            raise DataError(f"{path} holds {_kind(value)} under {name!r}, not a tensor", hint=hint)
    return dict(state)


def _stand_ins() -> restricted_pickle.StandIns:
    def rebuild(storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> _Described:
        described = _Described(storage, offset, tuple(shape), tuple(stride))
        numbers = (offset, *described.shape, *described.stride)
        if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a tensor with an impossible shape")
        return described

    def rebuild_as(storage: _Storage, offset: int, shape: Any, stride: Any, *rest: Any) -> _Described:
        kind = next((part for part in rest if isinstance(part, _Type)), None)
        if kind is None or not isinstance(storage, _Storage):
            raise ValueError("a tensor without a type")
        return rebuild(storage._replace(kind=kind.name), offset, shape, stride)

    def parameter(data: _Described, *_: Any) -> _Described:
        return data

    kinds = {("torch", kind): kind for kind in (*_FLOATS, *_OTHERS)}
    types = {("torch", name): _Type(name) for name in _NEWER_TYPES}
    return {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild,
        ("torch._utils", "_rebuild_tensor_v3"): rebuild_as,
        ("torch._utils", "_rebuild_parameter"): parameter,
        ("torch.storage", "UntypedStorage"): "UntypedStorage",
        **kinds,
        **types,
    }


def _storage(pid: Any) -> _Storage:
    tag, kind, key, _, numel = pid
    if tag != "storage" or not isinstance(kind, str) or not isinstance(key, str) or type(numel) is not int:
        raise ValueError("a reference to something that is not a storage")
    return _Storage(kind, key, numel)


def _check(path: Path, archive: zipfile.ZipFile, described: dict[str, _Described]) -> None:
    """Check the descriptions against the archive's own table; no tensor byte is read."""
    size = path.stat().st_size
    entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in entries.values()):
        raise DataError(f"{path} has compressed or encrypted parts, which torch.save never writes")
    for name, tensor in described.items():
        if tensor.storage.kind not in _FLOATS:
            raise other_type(path, name, tensor.storage.kind.removesuffix("Storage").lower())
        entry = entries.get(f"data/{tensor.storage.key}")
        wanted = tensor.storage.numel * _FLOATS[tensor.storage.kind]
        if entry is None or entry.file_size != wanted:
            held = "no bytes" if entry is None else f"{entry.file_size:,} bytes"
            raise DataError(f"{path}: {name} has {held}, its description says {wanted:,}", hint=_DAMAGED)
        if tensor.offset + tensor.numel > tensor.storage.numel:
            raise DataError(
                f"{path}: {name} has shape {tensor.shape}, {tensor.numel:,} numbers,"
                f" but only {tensor.storage.numel:,} are in the file"
            )
    declared = sum(t.numel * _FLOATS[t.storage.kind] for t in described.values())
    if declared > 2 * size:  # parts that are shared by a few tensors are fine, by thousands they are a bomb
        raise DataError(f"{path}: {declared:,} bytes of weights are declared in a file of {size:,}")


def _map(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds; whichever it was, nothing in the file was run
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: torch cannot read it: {type(error).__name__}: {reason}") from error
    return dict(state)


def _kind(value: object) -> str:
    if isinstance(value, _Described):
        return "one tensor without a name"
    return "nothing" if value in ({}, None) else f"a {type(value).__name__}"
