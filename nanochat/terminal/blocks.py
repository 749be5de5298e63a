'''Messages of several lines: `"""` begins one and `"""` at the end of a line ends it.'''

from __future__ import annotations

import re

# Alone, or as what a command is given.
_OPENING = re.compile(r'\s*(/\w+\s+)?"""')
_MARK = '"""'


def is_open(text: str) -> bool:
    """Return whether a block has begun and not ended."""
    begun = _OPENING.match(text)
    return begun is not None and not text[begun.end() :].rstrip().endswith(_MARK)


def without_marks(text: str) -> str:
    """Return what stands in the block that a text is, or the text itself."""
    text = text.strip()
    if not text.startswith(_MARK):
        return text
    inside = text.removeprefix(_MARK)
    return inside.removesuffix(_MARK).strip("\n") if inside.endswith(_MARK) else inside.strip("\n")
