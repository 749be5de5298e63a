"""The verb `report`: one run as a page that stands alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import output
from flows.cli.options import Overrides, StoreUrl, open_store

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
