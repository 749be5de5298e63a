"""The numbers of an evaluation, from what the model made of each item: `results.json` and nothing else.

    model      base or chat
    tasks      chat task -> its numbers (`nanochat.evals.task_results`)
    core       CORE task -> its numbers; empty where CORE was not asked
    metrics    val_bpb, and means over tasks under names that say of what (`nanochat.evals.problem_sets`)
    protocol   how these came about (`nanochat.evals.protocol`)

Reading such a file, and laying it out as a table, is the business of `nanochat.evals.results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nanochat.config import EvaluateConfig
from nanochat.evals import problem_sets
from nanochat.evals.protocol import protocol
from nanochat.evals.task_results import TaskResult


def results(
    kind: str,
    config: EvaluateConfig,
    tasks: Mapping[str, TaskResult],
    core: Mapping[str, TaskResult],
    val_bpb: float | None,
    *,
    precision: str,
) -> dict[str, Any]:
    """Return the content of `results.json` for a model of this kind (`base` or `chat`)."""
    return {
        "model": kind,
        "tasks": {name: result.to_json() for name, result in tasks.items()},
        "core": {label: result.to_json() for label, result in core.items()},
        "metrics": {
            **problem_sets.means("core", core),
            **problem_sets.means("chatcore", tasks, sampled=config.temperature > 0),
            **({} if val_bpb is None else {"val_bpb": val_bpb}),
        },
        "protocol": protocol(config, with_core=bool(core), precision=precision),
    }


def metrics(
    tasks: Mapping[str, TaskResult], core: Mapping[str, TaskResult], means: Mapping[str, float]
) -> dict[str, float]:
    """Return the numbers of an evaluation as a tracker and a record show them."""
    # CORE and the chat tasks have some names in common.
    found = {f"eval/{name}": result.accuracy for name, result in tasks.items()}
    for name, result in tasks.items():
        found |= {f"eval/{name}_{what}": value for what, value in result.sampled().items()}
    found |= {f"eval/core_{label}": result.accuracy for label, result in core.items()}
    return found | {f"eval/{name}": value for name, value in means.items()}
