"""Text from elsewhere as text that is safe to print: nothing in it acts on a terminal or hides.

A record, a file name, a token, a sample or an error of another program may hold escape sequences that move
the cursor, retitle the window or fill the clipboard, and characters that reorder or hide what stands beside
them. Each such character is written as its escape, all others stay as they are. One character decides about
itself alone, so a text can be cut anywhere and made printable piece by piece.

Not here: markup (HTML, Markdown, rich), which whoever writes it must quote, and secrets.
"""

from __future__ import annotations

import re

# Controls but newline and tab, halves of surrogate pairs, and what Unicode has as format characters or as
# ignorable: marks that turn the direction of text, spaces without width, fillers, tags. Two joiners without
# width (U+200C, U+200D) and the common variation selectors (U+FE00 to U+FE0F) stay, since Persian, Hindi and
# emoji need them. Pinned here, not asked of `unicodedata`, so that every Python prints the same.
_ACTS_OR_HIDES = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SHORT = {"\r": r"\r"}


def printable(text: str) -> str:
    r"""Return the text with each character that acts or hides as its escape, such as `\x1b` or `\u202e`."""
    return _ACTS_OR_HIDES.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    form = r"\x{:02x}" if code < 0x100 else r"\u{:04x}" if code < 0x10000 else r"\U{:08x}"
    return _SHORT.get(character) or form.format(code)
