"""The names of the tags by which runs are found in MLflow."""

from __future__ import annotations

KEY, DIGEST, MADE_BY_RUN = "nanochat.key", "nanochat.digest", "nanochat.made_by_run"
CACHE_STATUS = "cache.status"
EXECUTED, CACHED = "executed", "cached"  # its values
RECIPE, FLOW_RUN = "nanochat.recipe", "prefect.flow_run_id"  # both are on a pipeline's own run alone
INCOMPLETE = "nanochat.incomplete"  # events of the run were lost
FROM_RECORDS = "nanochat.from_records"  # written later than it happened


def run_tags(
    *,
    key: str | None = None,
    digest: str | None = None,
    commit: str | None = None,
    flow_run_id: str | None = None,
    task_run_id: str | None = None,
    prefect_url: str | None = None,
    made_by_run: str | None = None,
) -> dict[str, str]:
    """Return the tags that every stage's run carries, under the names that searches rely on."""
    named = {
        KEY: key,
        DIGEST: digest,
        "mlflow.source.git.commit": commit,
        FLOW_RUN: flow_run_id,
        "prefect.task_run_id": task_run_id,
        "prefect.url": prefect_url,
        MADE_BY_RUN: made_by_run,
    }
    return {name: value for name, value in named.items() if value}
