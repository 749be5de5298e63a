"""The page of an MLflow server that compares the newest pipeline runs, found without importing MLflow."""

from __future__ import annotations

import http.client
import json
import urllib.request
from typing import Any
from urllib.parse import quote

from nanochat.tracking.run_summary import COMPARED, comparison_page
from nanochat.tracking.tags import RECIPE

_PATIENCE_S = 5.0


def comparison_of_newest(mlflow_url: str, experiment: str = "nanochat") -> str | None:
    """Return its address; None for fewer than two finished runs, or a server that does not say."""
    api = f"{mlflow_url.rstrip('/')}/api/2.0/mlflow"
    wanted = {
        "filter": f"tags.`{RECIPE}` LIKE '%' and attributes.status = 'FINISHED'",
        "max_results": COMPARED,
        "order_by": ["attributes.start_time DESC"],
    }
    try:
        found = _asked(f"{api}/experiments/get-by-name?experiment_name={quote(experiment)}")
        experiment_id = str(found["experiment"]["experiment_id"])
        runs = _asked(f"{api}/runs/search", {**wanted, "experiment_ids": [experiment_id]}).get("runs", [])
        ids = [str(run["info"]["run_id"]) for run in runs]
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException):
        return None
    if len(ids) < 2:
        return None
    return f"{mlflow_url.rstrip('/')}/{comparison_page(experiment_id, ids)}"


def _asked(address: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found
