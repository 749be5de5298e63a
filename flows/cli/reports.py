"""The verbs `report` and `diff`: one run as a page that stands alone, and what differs between two."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli import output
from flows.cli.options import AsJson, Overrides, StoreUrl, open_store

if TYPE_CHECKING:
    from flows.report.run_difference import RunDifference

Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A recipe, or a record of the run: a stage, or stage/<key prefix>."),
]


def report(
    run: Run = "toy",
    override: Overrides = None,
    store: StoreUrl = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it (default: below NANOCHAT_HOME).")
    ] = None,
) -> None:
    """Write one HTML page about a run, from records alone.

    It shows what was made, time and money, curves, benchmarks, samples and data, and what is damaged or
    missing. The page loads nothing, and each number leads to the record that it is from.
    """
    from flows.report.page_file import require_replaceable
    from flows.report.recorded_run import find_run
    from flows.report.run_page import write_report

    settings, opened = open_store(store)
    target = out or settings.home / "reports" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', run)}.html"
    require_replaceable(target)
    found = find_run(opened, run, override or ())
    output.show(str(write_report(found, target)))
    output.warn(found.problems)


def diff(
    a: Annotated[
        str, typer.Argument(help="A recipe, or a record of the run: a stage, or stage/<key prefix>.")
    ],
    b: Annotated[str, typer.Argument(help="Another one.")],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o", "--override", metavar="FIELD=VALUE", help="Change one field of B, a recipe; repeatable."
        ),
    ] = None,
    store: StoreUrl = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page, with curves in one picture.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two runs, from records alone.

    Fields, scores with intervals, and numbers, each only where it differs; and what cannot be compared. The
    exit code is 0 whether or not they differ.
    """
    from flows.report.difference_page import write_difference
    from flows.report.difference_text import as_json as differences
    from flows.report.page_file import require_replaceable
    from flows.report.recorded_run import find_run
    from flows.report.run_difference import difference_of

    _, opened = open_store(store)
    if html:
        require_replaceable(html)
    words = [b, *(word for text in override or () for word in ("-o", text))]
    runs = find_run(opened, a), find_run(opened, b, override or ())
    found = difference_of((a, shlex.join(words)), *runs)
    if html:
        output.say(f"page: {write_difference(found, html)}")
    if as_json:
        output.show_json(differences(found))
    else:
        _show(found)
    output.warn(problem for run in runs for problem in run.problems)


def _show(found: RunDifference) -> None:
    from flows.cli.diff_tables import difference_tables
    from flows.report.difference_text import remarks

    if found.is_none:
        output.show(
            f"{found.names[0]} and {found.names[1]} are the same run: {len(found.alike)} records alike"
        )
        return
    for remark in remarks(found):
        output.show(remark)
    for table in difference_tables(found):
        output.show("")
        output.show(table)
