from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flows.display.clean import CleanLogRecord
from flows.display.console import PrintableConsole
from flows.display.progress import Progress

HOSTILE = "[red]a\x1b]8;;http://x\x1b\\b\u202ec:smile:"
SHOWN = r"[red]a\x1b]8;;http://x\x1b\b\u202ec:smile:"


def _console(**options):
    return PrintableConsole(file=io.StringIO(), width=200, **options)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("form", ["text", "styled", "table", "tree"])
def test_foreign_text_is_printed_as_text_in_whatever_it_is_put(form, terminal):
    console = _console(force_terminal=terminal, color_system=None)
    table = Table(box=None)
    table.add_column("name")
    table.add_row(HOSTILE)
    console.print({"text": HOSTILE, "styled": Text(HOSTILE), "table": table, "tree": Tree(HOSTILE)}[form])
    assert SHOWN in console.file.getvalue()
    assert not [code for code in ("\x1b]", "\x1b\\", "\u202e") if code in console.file.getvalue()]


def test_a_narrow_table_wraps_what_was_escaped_and_loses_none_of_it():
    console = PrintableConsole(file=io.StringIO(), width=12)
    table = Table(box=None, show_header=False)
    table.add_column(overflow="fold")
    table.add_row("\x1b" * 20)
    console.print(table)
    assert "".join(console.file.getvalue().split()) == r"\x1b" * 20


def test_the_styles_of_our_own_still_act_on_a_terminal():
    console = _console(force_terminal=True, color_system="standard")
    console.print(Text("green", "green"))
    assert "\x1b[32mgreen" in console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_samples_escape_sequences_do_not_reach_the_terminal(terminal):
    console = _console(force_terminal=terminal, force_interactive=terminal)
    with Progress(console) as progress:
        tracker = progress.started("sft\x1b[41m")
        tracker.log_text("\x1b[31mred \x1b[2J", step=3)
        progress.finished("sft\x1b[41m", "failed  \x1b[31m")
    written = console.file.getvalue()
    assert not [code for code in ("\x1b[31m", "\x1b[41m", "\x1b[2J") if code in written]
    assert r"\x1b[31mred \x1b[2J" in written and r"failed  \x1b[31m" in written


def test_log_lines_and_their_tracebacks_are_printable_and_have_no_credentials():
    try:
        raise OSError("\x1b[2J.parquet from https://u:p@h")
    except OSError:
        found = sys.exc_info()
    record = CleanLogRecord("x", logging.WARNING, "x.py", 1, "no \x1b]0;%s", ("https://u:p@h",), found)
    text = logging.Formatter("%(message)s").format(record)  # as every handler's, Prefect's too
    assert r"no \x1b]0;https://h" in text and r"OSError: \x1b[2J.parquet from https://h" in text
    assert "\x1b" not in text and "u:p" not in text


@pytest.mark.parametrize("thread", [False, True])
def test_a_traceback_that_nobody_caught_is_printable_and_has_no_credentials(thread):
    code = (
        "import threading; from flows.display.clean import keep_output_clean as p; p()\n"
        "def fail(): raise OSError('\\x1b[2J https://u:p@h')\n"
        f"threading.Thread(target=fail).start() if {thread} else fail()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert r"OSError: \x1b[2J https://h" in done.stderr and "\x1b" not in done.stderr
