"""What a flow run's own page shows in Prefect, as tables: the plan as it begins, what came of it at its end.

A server that is slow or away costs a run a few seconds, never its result.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context

from prefect.artifacts import create_table_artifact

from flows.plan import Plan
from flows.run.headline import brief, headline
from flows.run.session import Session

logger = logging.getLogger(__name__)
_PATIENCE_S = 5.0


def show_plan(plan: Plan) -> None:
    """Show each node, whether it has to run, and why."""
    rows = [{"node": p.node.id, "action": p.action, "why": p.reason} for p in plan.nodes]
    _show("plan", rows, f"What a run of `{plan.recipe.name}` has to do.")


def show_results(session: Session) -> None:
    """Show each node with its digest, time and numbers, and the numbers by which runs are compared."""
    executed = set(session.executed)
    rows = [
        {
            "node": node_id,
            "status": "done" if node_id in executed else "cached",
            "digest": record.digest[:12],
            "seconds": record.provenance.get("seconds"),
            "numbers": brief(record.metrics),
        }
        for node_id, record in session.records.items()
    ]
    _show("results", rows, "What the run made, or found already made.")
    summary = [{"number": name, "value": f"{value:.6g}"} for name, value in headline(session.records).items()]
    _show("headline", summary, "The numbers by which runs are compared.")


def _show(key: str, rows: Sequence[Mapping[str, object]], text: str) -> None:
    _soon(lambda: create_table_artifact([dict(row) for row in rows], key=key, description=text), key)


def _soon(send: Callable[[], object], what: str) -> None:
    """Call what asks the server on a thread of its own, and wait a little for it."""

    def run() -> None:
        try:
            send()
        except Exception as error:  # an error in the UI must not reach the run
            logger.warning("the table %r does not reach Prefect: %s", what, error)

    context = copy_context()  # Prefect finds the run to which the table belongs in there
    thread = threading.Thread(target=lambda: context.run(run), name="run-artifacts", daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
