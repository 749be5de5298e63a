"""A signature over every file of a model folder, as OpenSSF's model-signing writes and reads it.

One file beside the model, `model.sig`, holds a digest of every other file and is signed with a key pair of
the owner's; nothing goes over the network. What the files say is not looked at, nor where they come from
(`nanochat.publish.made_from`). The package is an extra, because it brings some twenty others.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.errors import ConfigError, DataError
from nanochat.file_digest import sha256_of

FILE_NAME = "model.sig"
_OF_GIT = (".git", ".gitattributes", ".github", ".gitignore")  # what a clone of the folder has besides
HOW_TO_INSTALL = "install them: `uv sync --extra sign`, or `pip install 'nanochat[sign]'`"
_FORM = "https://model_signing/signature/v1.0"
_LARGEST_BYTES = 64 * 2**20  # a signature names every file in some hundred bytes
_MAKE_KEYS = (
    "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY`,"
    " and its public half with `openssl pkey -in KEY -pubout -out PUBLIC`"
)


@dataclass(frozen=True)
class Signed:
    """What a valid signature says."""

    files: tuple[str, ...]
    key: str  # sha256 of the public key in PEM, as the signature names it


def sign(folder: Path, key: Path, password: str | None = None) -> None:
    """Write the signature over all files of a folder, made with a private key of an elliptic curve.

    Raises ConfigError for a key that cannot be used, and DataError for a folder that holds links.
    """
    signing = _package().signing
    with _key_errors(key):
        maker = signing.Config().use_elliptic_key_signer(
            private_key=key, password=None if password is None else os.fsencode(password)
        )
    try:
        maker.set_hashing_config(_hashing()).sign(folder, folder / FILE_NAME)
    except ValueError as error:
        raise DataError(f"{folder} cannot be signed: {error}") from error


def is_encrypted(key: Path) -> bool:
    """Return whether a private key asks for a password."""
    with _key_errors(key):
        return b"ENCRYPTED" in key.read_bytes()[:4096]


def check(folder: Path, public_key: Path) -> Signed:
    """Return what was signed with the private half of a key.

    Raises DataError for a signature that is missing, damaged or of another key, and for each file that is
    not as it was signed, was not signed, or is missing.
    """
    verifying = _package().verifying
    path = folder / FILE_NAME
    with _key_errors(public_key):
        checker = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    _require_readable(path)
    try:
        _require_current(_statement(path))
        # It prints a warning about signatures of before its version 1; stdout is for data.
        with contextlib.redirect_stdout(sys.stderr):
            checker.set_hashing_config(_hashing()).verify(folder, path)
        statement = _statement(path)
    except Exception as error:  # whatever hostile bytes make the package raise
        raise DataError(
            f"{folder}: {_explained(error, folder)}",
            hint="get the folder from its owner again, or another key",
        ) from error
    ignored = {*map(str, statement["predicate"]["serialization"].get("ignore_paths", []))}
    if left_out := sorted(ignored - {FILE_NAME, *_OF_GIT}):
        raise DataError(f"{folder}: the signature leaves out {', '.join(map(_shown, left_out))}")
    files = tuple(resource["name"] for resource in statement["predicate"]["resources"])
    return Signed(files, hashlib.sha256(_public_pem(public_key)).hexdigest())


def covers(name: str) -> bool:
    """Return whether the signature of a folder is over a file of this name."""
    return name != FILE_NAME and name.partition("/")[0] not in _OF_GIT


def _package() -> Any:
    """Return model-signing, which has few annotations; importing it takes seconds."""
    try:
        import model_signing
    except ImportError as error:
        raise ConfigError(
            f"signatures need packages that are not installed: {error.name}", hint=HOW_TO_INSTALL
        ) from error
    return model_signing


def _hashing() -> Any:
    return _package().hashing.Config().set_ignored_paths(paths=[FILE_NAME], ignore_git_paths=True)


@contextlib.contextmanager
def _key_errors(key: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{key}: {error.strerror}", hint=_MAKE_KEYS) from error
    except (ValueError, TypeError, AttributeError) as error:  # AttributeError: a key of another kind
        said = str(error) if not isinstance(error, AttributeError) else "it has no elliptic curve"
        raise ConfigError(f"{key} is not a key that can be used here: {said}", hint=_MAKE_KEYS) from error


def _require_readable(path: Path) -> None:
    if path.is_symlink():
        raise DataError(
            f"{path} is a link, which is not followed",
            hint="copy the folder with what its links lead to: `cp -rL` (in a hub's cache all are links)",
        )
    if not path.is_file():
        raise DataError(f"{path} is missing: the folder is not signed", hint="export it with --sign KEY")
    if path.stat().st_size > _LARGEST_BYTES:
        raise DataError(
            f"{path} has {path.stat().st_size:,} bytes; a signature has {_LARGEST_BYTES:,} at most"
        )


def _statement(path: Path) -> dict[str, Any]:
    """Return the statement inside a signature, which is to be found valid before it counts."""
    envelope = json.loads(path.read_bytes())["dsseEnvelope"]
    statement: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return statement


def _require_current(statement: dict[str, Any]) -> None:
    """Raise ValueError for the form before model-signing 1.0, which the package takes as well."""
    if (form := statement["predicateType"]) != _FORM:
        raise ValueError(f"it has the form {form}, not {_FORM}, which says what it leaves out")


def _public_pem(key: Path) -> bytes:
    from cryptography.hazmat.primitives import serialization

    public = serialization.load_pem_public_key(key.read_bytes())
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _explained(error: Exception, folder: Path) -> str:
    said = " ".join(str(error).split())
    if said.startswith("Signature mismatch"):  # the signature itself is valid
        return "; ".join(_differences(folder, _statement(folder / FILE_NAME)))
    if said.startswith("Cannot use"):  # a link, or a file that is none
        return re.split(r" This behavior| It could be", said)[0]
    if said.startswith("Key mismatch") or type(error).__name__ == "InvalidSignature":
        return "the signature was not made with this key, or was changed"
    return f"the signature cannot be read: {type(error).__name__}: {said[:300]}"


def _differences(folder: Path, statement: dict[str, Any]) -> list[str]:
    """Say of each file that is not as a statement says what is wrong with it."""
    signed = {resource["name"]: resource["digest"] for resource in statement["predicate"]["resources"]}
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    known = set(filter(covers, found))
    changed = [name for name in sorted(known & signed.keys()) if sha256_of(found[name]) != signed[name]]
    return [
        *(f"{_shown(name)} was changed after it was signed" for name in changed),
        *(f"{_shown(name)} is missing" for name in sorted(signed.keys() - known)),
        *(f"{_shown(name)} was not signed" for name in sorted(known - signed.keys())),
    ] or ["it is not as it was signed"]


def _shown(name: str) -> str:
    """Return a name in one line: one with a line break in it could write a message of its own."""
    return name.replace("\n", r"\n")
