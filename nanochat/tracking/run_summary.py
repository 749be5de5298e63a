"""The end of a pipeline run in MLflow: the model that it published, and a page that compares runs.

A published model is logged and registered once, whichever run shows it first: MLflow keeps its name, digest
and numbers, the store keeps its files. Works on a client that it is given, and imports no MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from nanochat.tracking.tags import DIGEST, KEY, RECIPE

COMPARED = 5  # runs on one page; more curves and columns cannot be told apart
_NOTE = "mlflow.note.content"  # what MLflow shows as a run's description


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A model of the store."""

    name: str
    """Under which all models of a recipe are registered, a version each."""
    key: str
    digest: str
    params: Mapping[str, str]
    description: str


def register(client: Any, experiment_id: str, run_id: str, model: PublishedModel) -> str | None:
    """Log and register a model unless it is there, known by its digest; return its id if it is new."""
    by_digest = f"tags.`{DIGEST}` = '{model.digest}'"
    found = client.search_logged_models([experiment_id], filter_string=by_digest, max_results=1)
    tags = {KEY: model.key, DIGEST: model.digest}
    if found:
        logged = found[0]
    else:
        logged = client.create_logged_model(
            experiment_id,
            name=model.name,
            source_run_id=run_id,
            tags=tags,
            params=dict(model.params),
            model_type="nanochat",
        )
        client.finalize_logged_model(logged.model_id, "READY")
    named = f"name = '{model.name}'"
    if not client.search_registered_models(named, max_results=1):
        _create(client, model.name, named)
    if not client.search_model_versions(f"{named} and {by_digest}", max_results=1):
        client.create_model_version(
            model.name,
            source=logged.artifact_location,
            run_id=run_id,
            tags=tags,
            description=model.description,
            await_creation_for=0,
            model_id=logged.model_id,
        )
    return None if found else str(logged.model_id)


def _create(client: Any, name: str, named: str) -> None:
    try:
        client.create_registered_model(name)
    except Exception:  # another run that ends now may have made it
        if not client.search_registered_models(named, max_results=1):
            raise


def link_comparison(client: Any, experiment_id: str, run_id: str) -> str | None:
    """Put a link to the comparison with earlier pipeline runs into a run's description; None without any.

    Returns the page's address below the server's.
    """
    found = client.search_runs(
        [experiment_id],
        f"tags.`{RECIPE}` LIKE '%' and attributes.status = 'FINISHED'",
        max_results=COMPARED,
        order_by=["attributes.start_time DESC"],
    )
    earlier = [run.info.run_id for run in found if run.info.run_id != run_id][: COMPARED - 1]
    if not earlier:
        return None
    page = comparison_page(experiment_id, [run_id, *earlier])
    client.set_tag(run_id, _NOTE, f"[Compare with the {len(earlier)} runs before]({page})")
    return page


def comparison_page(experiment_id: str, run_ids: Sequence[str]) -> str:
    """Return the address below the server's of the page that compares runs."""
    runs, experiments = (quote(json.dumps(ids)) for ids in (list(run_ids), [experiment_id]))
    return f"#/compare-runs?runs={runs}&experiments={experiments}"
