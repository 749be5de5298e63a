"""The `nanochat` command: verbs that read (`plan`, `why`, `ls`, …) and verbs that act (`run`, `gc`, …).

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 the work failed, 2 wrong usage. Each
verb only parses, calls and prints, in the file of its group; heavy modules are imported by the verbs that
need them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

import typer

from flows.cli import display, models, output, plan, recipes, run, store
from flows.proxies import reach_loopback_directly
from nanochat.errors import ConfigError, Interrupted, NanochatError

app = typer.Typer(
    name="nanochat",
    help="One dial and one command from raw text shards to a published chat model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


_VERBS: dict[str, Callable[..., None]] = {
    "recipes": recipes.list_recipes,
    "show": recipes.show,
    "plan": plan.plan,
    "why": plan.why,
    "run": run.run,
    "ls": store.list_records,
    "inspect": store.inspect,
    "verify": store.verify_store,
    "gc": store.collect_garbage,
    "eval": models.evaluate,
    "chat": models.chat,
    "import": models.import_folder,
    "export": models.export,
    "report": display.report,
    "ui": display.ui,
}
for _name, _verb in _VERBS.items():
    app.command(_name)(_verb)


def main() -> None:
    """Run the command line; turn our errors into a message, a hint and an exit code."""
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
    except KeyboardInterrupt:
        output.fail("interrupted", output.GO_ON)
