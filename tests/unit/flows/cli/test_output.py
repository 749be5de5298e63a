from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.cli import output


class _Record:
    pass


def test_json_is_ascii_and_reads_back_as_it_was(capsys):
    data = {"name\x7f\x1b": "é \x9b \u202e \ud83d"}
    output.show_json(data)
    printed = capsys.readouterr().out
    assert printed.isascii() and not {"\x1b", "\x7f"} & set(printed)
    assert json.loads(printed) == data


def test_json_holds_null_where_a_number_is_not_finite(capsys):
    output.show_json({"a": [float("nan"), 1.5], "b": {"c": float("-inf")}, "d": (2, None, True)})

    def refuse(constant):
        raise ValueError(constant)

    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed == {"a": [None, 1.5], "b": {"c": None}, "d": [2, None, True]}


def test_json_holds_no_text_that_only_python_reads(capsys):
    output.show_json({"folder": Path("a/b"), "at": datetime(2026, 1, 2, tzinfo=UTC)})
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"folder": str(Path("a/b")), "at": "2026-01-02 00:00:00+00:00"}
    with pytest.raises(TypeError, match="_Record has no form in JSON"):
        output.show_json({"problems": _Record()})


def test_pieces_of_an_answer_are_printable_even_where_a_sequence_is_cut(capsys):
    for piece in ("a\x1b", "]0;title", "\x07b\n"):
        output.write(piece)
    assert capsys.readouterr().out == "a\\x1b]0;title\\x07b\n"


@pytest.mark.parametrize("print_", [output.show, output.say])
def test_texts_are_printed_as_they_are_but_for_what_acts_or_hides(print_, capsys):
    print_("a [bold]b[/bold] :smile: \x1b[2J é")
    printed = "".join(capsys.readouterr())
    assert printed == "a [bold]b[/bold] :smile: \\x1b[2J é\n"


def test_an_error_and_its_hint_are_printable(capsys):
    with pytest.raises(SystemExit):
        output.fail("\x1b[2J", "\x9bA")
    assert capsys.readouterr().err == "error: \\x1b[2J\nhint: \\x9bA\n"
