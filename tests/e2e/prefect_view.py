"""What a Prefect server knows, asked through its API; task runs get there as events, a bit later."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, TaskRun

SETTLE_LIMIT_S = 180.0  # a crowded machine is not a failure


@dataclass(frozen=True)
class PrefectView:
    """Flow runs and their task runs, by node id."""

    client: SyncPrefectClient

    def flow_runs_with(self, store: str) -> list[FlowRun]:
        """Return the runs of flows on a store, oldest first: tests share one server."""
        runs = self.client.read_flow_runs(limit=200)
        mine = [run for run in runs if run.parameters.get("store") == store]
        return sorted(mine, key=lambda run: run.created)

    def tasks(self, flow_run_id: UUID) -> dict[str, TaskRun]:
        """Return the newest task run of each node."""
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        runs = self.client.read_task_runs(flow_run_filter=chosen, limit=200)
        return {run.name: run for run in sorted(runs, key=lambda run: run.created)}

    def settled(
        self, flow_run_id: UUID, nodes: set[str], since: datetime | None = None
    ) -> dict[str, TaskRun]:
        """Return the task runs of `nodes` once each has ended (after `since`), or after a while."""
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while True:
            found = {name: run for name, run in self.tasks(flow_run_id).items() if name in nodes}
            if time.monotonic() > deadline or (
                set(found) == nodes and all(_has_ended(run, since) for run in found.values())
            ):
                return found
            time.sleep(0.5)

    def artifacts(self, flow_run_id: UUID) -> dict[str, dict]:
        """Return a flow run's artifacts by key."""
        chosen = {"flow_runs": {"id": {"any_": [str(flow_run_id)]}}}
        found = self.client.request("POST", "/artifacts/filter", json=chosen).json()
        return {artifact["key"]: artifact for artifact in found}


def _has_ended(run: TaskRun, since: datetime | None) -> bool:
    """Return whether the server knows of a task run's end, and not only of that before a retry."""
    return run.state is not None and run.state.is_final() and (since is None or run.state.timestamp >= since)
