"""Text that becomes part of a path: names of our own making, and places of files that a user has named.

Every field that ends up in a path has one of these two types, so that no recipe, record or listing leads out
of the folder it is meant for. Imports nothing of ours.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_LONGEST_NAME = (
    100  # characters; file names that contain one stay below the 255 bytes that file systems allow
)
_LONGEST_PART, _LONGEST_PLACE = 255, 1000  # bytes


def checked_name(text: str) -> str:
    """Return the text if it is a name of letters, digits, `.`, `_` and `-`; raise ValueError if not."""
    if len(text) > _LONGEST_NAME:
        raise ValueError(
            f"{text[:20]!r}… has {len(text)} characters; at most {_LONGEST_NAME} are possible: use fewer"
        )
    if not _NAME.fullmatch(text):
        near = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")
        raise ValueError(
            f"{text!r} is not a name: use letters, digits, '.', '_' and '-', a letter or digit first"
            + (f", such as {near!r}" if _NAME.fullmatch(near) else "")
        )
    return text


def checked_place(text: str) -> str:
    """Return the text if it is the path of a file below some folder, parts joined by `/`; else ValueError.

    File names are the user's: spaces and letters of any script are theirs to choose.
    """
    for part in text.split("/"):
        if part in ("", ".", "..") or "\\" in part or not part.isprintable() or part != part.strip():
            raise ValueError(
                f"{text!r} is not the path of a file below its folder: use file names of printable characters"
                " without '\\' and without spaces at the ends, and no '..'"
            )
        if len(part.encode()) > _LONGEST_PART:
            raise ValueError(f"{part[:20]!r}… has more than {_LONGEST_PART} bytes: use a shorter file name")
    if len(text.encode()) > _LONGEST_PLACE:
        raise ValueError(f"{text[:20]!r}… has more than {_LONGEST_PLACE} bytes: use shorter folder names")
    return text


Name = Annotated[str, AfterValidator(checked_name)]
Place = Annotated[str, AfterValidator(checked_place)]
