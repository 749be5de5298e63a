"""Run one download stage as a Prefect flow whose source fails once: `python -m tests.e2e.flaky_run STORE`.

Prints the flow run's id. It has a process of its own because Prefect reads its settings once.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from prefect import flow
from rich.console import Console

from flows.display.progress import Progress
from flows.display.run_display import RunDisplay
from flows.plan import Plan, Planned, make_plan
from flows.run.execute import ExecutionContext
from flows.run.prefect_engine import flow_run_id, run_session
from flows.run.session import begin
from flows.store import Store
from nanochat import recipes
from nanochat.data.sources.corpus import download_shard
from nanochat.errors import SourceUnavailable
from nanochat.runtime import Runtime

calls: list[str] = []


def flaky_download(config, inputs, out, runtime):
    """Fail the first time as a source that does not answer, then do what the stage does."""
    calls.append(config.name)
    if len(calls) == 1:
        raise SourceUnavailable("the source does not answer")
    return download_shard(config, inputs, out, runtime)


def flaky(planned: Planned) -> Planned:
    """Return the planned node with a function that fails once."""
    stage = replace(planned.node.stage, run="tests.e2e.flaky_run:flaky_download")
    return replace(planned, node=replace(planned.node, stage=stage))


@flow(persist_result=False)
def one_download(store: str) -> str:
    opened = Store.open(store)
    plan = make_plan(recipes.find("toy", ["corpus.toy.documents_per_shard=20"]), opened, until="download")
    plan = Plan(plan.recipe, (flaky(plan.nodes[0]),))
    context = ExecutionContext(store=opened, scratch=opened.cache / "scratch", runtime=Runtime(threads=1))
    with (
        Progress(Console(stderr=True)) as progress,
        begin(plan, context, RunDisplay(progress=progress)) as session,
    ):
        run_session(session, retries=1, retry_delay_s=0.0)
    return flow_run_id()


if __name__ == "__main__":
    print(one_download(sys.argv[1]))
