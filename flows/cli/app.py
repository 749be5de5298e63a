"""The `nanochat` command: verbs that read (`plan`, `why`, `ls`, …) and verbs that act (`run`, `gc`, …).

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 the work failed, 2 wrong usage. Each
verb only parses, calls and prints, in the file of its group, which is imported when the verb is asked for;
heavy modules are imported by the verbs that need them.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import os
import sys
from collections import UserDict
from importlib.metadata import version
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from flows.cli import output
from flows.display.clean import keep_output_clean
from flows.proxies import reach_loopback_directly
from flows.settings import home_folder
from nanochat.errors import ConfigError, Interrupted, NanochatError
from nanochat.system_errors import explain

logger = logging.getLogger(__name__)

_VERBS: dict[str, str] = {
    "recipes": "recipes:list_recipes",
    "show": "recipes:show",
    "plan": "plan:plan",
    "why": "plan:why",
    "run": "run:run",
    "submit": "submit:submit",
    "ls": "store:list_records",
    "inspect": "store:inspect",
    "verify": "store:verify_store",
    "gc": "store:collect_garbage",
    "eval": "scoring:evaluate",
    "info": "info:info",
    "chat": "chat:chat",
    "serve": "serve:serve",
    "import": "models:import_folder",
    "export": "models:export",
    "push": "push:push",
    "report": "reports:report",
    "diff": "reports:diff",
    "ui": "display:ui",
}  # module in `flows.cli`, and function


class _Commands(UserDict[str, Any]):
    """The commands of the verbs, each made when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        """Return a command; its module brings what all its options and tables need."""
        made = super().__getitem__(name)
        if isinstance(made, str):
            module, _, function = made.partition(":")
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name)(getattr(importlib.import_module(f"flows.cli.{module}"), function))
            made = self.data[name] = typer.main.get_command(alone)
        return made


class _Verbs(TyperGroup):
    """A group that knows its verbs by name before their modules are imported."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Commands(_VERBS)


app = typer.Typer(
    name="nanochat",
    cls=_Verbs,
    help="One dial and one command from raw text shards to a published chat model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        from flows.run.provenance import commit

        known, changed = commit()
        of_commit = f" (commit {known[:12]}{', changed since' if changed else ''})" if known else ""
        output.show(f"nanochat {version('nanochat')}{of_commit}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show version and commit."),
    ] = False,
) -> None:
    """Take the options that come before a verb; the help text is that of `app`."""


def _collect_rarely() -> None:
    """Keep the garbage collector from walking again and again, and once more at the end, what imports made.

    Modules stay: with PyTorch among them, looking for garbage there takes a third of a short command's time.
    """
    gc.set_threshold(100_000, 20, 20)
    atexit.register(gc.freeze)


def main() -> None:
    """Run the command line; turn our errors and the system's into a message, a hint and an exit code."""
    _collect_rarely()
    keep_output_clean()
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    reach_loopback_directly(os.environ)
    try:
        app()
    except Interrupted as error:
        output.fail(f"interrupted: {error}", output.GO_ON)
    except ConfigError as error:
        output.fail(str(error), error.hint, code=2)
    except NanochatError as error:
        output.fail(str(error), error.hint)
    except OSError as error:
        logger.debug("as the system reported it", exc_info=True)
        shown = explain(error, places=(home_folder(),))
        output.fail(str(shown), shown.hint)
    except KeyboardInterrupt:
        output.fail("interrupted", output.GO_ON)
