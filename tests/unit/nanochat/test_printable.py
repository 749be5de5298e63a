from __future__ import annotations

import sys
import unicodedata

import pytest

from nanochat.errors import ConfigError
from nanochat.printable import printable

# Default_Ignorable_Code_Point of Unicode 15.1 but for what Persian, Hindi and emoji need.
_IGNORABLE = [
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x200B, 0x200E, 0x200F),
    *(*range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, 0xFEFF, 0xFFA0, *range(0xFFF0, 0xFFF9)),
    *(*range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)),
]
# Format characters that are drawn, or that change how their neighbours are: numbers and signs of scripts.
_DRAWN = "\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("done\rfailed\b\x7f", r"done\rfailed\x08\x7f"),
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        ("\u2066a\u2069", r"\u2066a\u2069"),
        ("pay\u200bpal", r"pay\u200bpal"),
        ("half \ud83d", r"half \ud83d"),
        ("tag \U000e0041", r"tag \U000e0041"),
        ("tab\tand\nline", "tab\tand\nline"),
        (
            "Łódź, 東京\u3000, सत्य, 👩\u200d🔬 ❤\ufe0f, می\u200cخواهم",
            "Łódź, 東京\u3000, सत्य, 👩\u200d🔬 ❤\ufe0f, می\u200cخواهم",
        ),
    ],
)
def test_what_acts_or_hides_is_written_as_its_escape_and_all_else_stays(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    assert "".join(printable(character) for character in text) == shown  # wherever a stream cuts it


def test_every_control_and_format_character_is_escaped_and_no_letter_sign_or_space_is():
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    ignorable = {chr(code) for code in _IGNORABLE}
    kinds = {c: unicodedata.category(c) for c in every}
    acting = {c for c, kind in kinds.items() if kind in ("Cc", "Cf", "Cs", "Zl", "Zp")} | ignorable
    escaped = {c for c in every if printable(c) != c}
    assert acting - escaped == {"\n", "\t", *_DRAWN}
    assert {c for c in escaped - acting if kinds[c] != "Cn"} <= {"\ufff9", "\ufffa", "\ufffb"}


def test_an_error_of_ours_is_printable_whatever_it_quotes():
    error = ConfigError("no stage '\x1b[2J'", hint="see \x1b]8;;http://x\x07")
    assert (str(error), error.hint) == (r"no stage '\x1b[2J'", r"see \x1b]8;;http://x\x07")
