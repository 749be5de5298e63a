"""The records that a run of `d20` would leave: what they were made with, and nothing that was made."""

from __future__ import annotations

import json
from functools import cache
from typing import Any
from unittest import mock

from flows import dag
from flows.plan.key import NoDigests, payload_of
from nanochat.recipes import find


@cache
def d20_records(*overrides: str) -> list[dict[str, Any]]:
    """Return stage, node, payload and names of inputs of each record."""
    with mock.patch.object(dag, "resolve_tasks", lambda config: config):  # asks the hub
        nodes = dag.build(find("d20", overrides))
    records = [
        {
            "stage": node.stage.name,
            "node": node.id,
            "payload": payload_of(node, NoDigests()),
            "inputs": {name: {} for name in node.inputs},
        }
        for node in nodes
    ]
    found: list[dict[str, Any]] = json.loads(json.dumps(records))
    return found
