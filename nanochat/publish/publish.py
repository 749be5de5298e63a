"""The publish stage: a model folder in nanochat's format, all results in one file, and the model card.

The weights, the tokenizer and `results.json` are the artifact. The card (`README.md`) is an attachment,
because it reports times, hardware and cost, and so is the script that answers without this project.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat.config import PublishConfig
from nanochat.data.chat.task_table import TASKS
from nanochat.errors import DataError
from nanochat.evals.contamination import overlap
from nanochat.formats.nanochat_folder import write_nanochat_folder
from nanochat.model.checkpoint import load_model
from nanochat.model.flops import parameter_count
from nanochat.publish.card_inputs import CardInputs
from nanochat.publish.model_card import render_model_card
from nanochat.publish.standalone import standalone_script
from nanochat.runtime import Runtime
from nanochat.tokenizer.tokenizer import Tokenizer

_EVALUATES = "evaluate_"  # prefix of the inputs that hold the results of one model


def publish(
    config: PublishConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, float | int | str]:
    """Write the published folder from `inputs`: tokenizer, model, evaluate_*, contamination, lineage.

    Each `evaluate_*` is about one model; the last of them about the one that is published.
    """
    runtime.raise_if_stopped()
    model = load_model(inputs["model"])
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    results = {
        name.removeprefix(_EVALUATES): _json(folder / "results.json")
        for name, folder in inputs.items()
        if name.startswith(_EVALUATES)
    }
    final = list(results.values())[-1]
    step, losses = _last_step(inputs["model"] / "metrics.jsonl")
    write_nanochat_folder(
        out,
        state=model.state_dict(),
        config=model.config,
        tokenizer=tokenizer,
        step=step,
        results={**losses, **_meta_accuracies(final)},
    )
    found = _overlap(inputs["contamination"])
    everything = {**results, "contamination": found.to_json()}
    text = json.dumps(everything, indent=2, sort_keys=True) + "\n"
    (out / "results.json").write_text(text, encoding="utf-8")
    described = [_json(path) for path in sorted(inputs["lineage"].glob("*.json"))]
    records = {record["node"]: record for record in described}
    card = render_model_card(
        CardInputs(config, model.config, parameter_count(model.config), results, found, records)
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    (out / "generate_cpu.py").write_text(standalone_script(), encoding="utf-8")
    files = [path for path in out.iterdir() if path.is_file()]
    return {
        "parameters": parameter_count(model.config),
        "step": step,
        "model_bytes": sum(p.stat().st_size for p in files if p.suffix == ".pt" and "model" in p.name),
    }


def _overlap(folder: Path) -> overlap.Overlap:
    """Add up what was found in the shards, which are numbered folders."""
    return overlap.merge(
        [overlap.Overlap.read(path) for path in sorted(folder.glob(f"*/{overlap.FILE_NAME}"))]
    )


def _last_step(metrics: Path) -> tuple[int, dict[str, float]]:
    """Return the number of optimizer steps taken, and the last validation loss if there was one."""
    rows = [json.loads(line) for line in _text(metrics).splitlines() if line]
    if not rows:
        raise DataError(
            f"{metrics} has no steps", hint="make the model again: --force with the stage that trained it"
        )
    measured = [row["val/loss"] for row in rows if row.get("val/loss") is not None]
    return int(rows[-1]["step"]), ({"val_loss": measured[-1]} if measured else {})


def _meta_accuracies(results: Mapping[str, Any]) -> dict[str, float]:
    tasks = results["tasks"]
    # The last declared first: the order of fields is part of the file's bytes.
    named = [task for task in reversed(TASKS.values()) if task.upstream_result and task.name in tasks]
    return {task.upstream_result: tasks[task.name]["accuracy"] for task in named}


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} holds {type(data).__name__}, not an object")
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing", hint="make this input again: --force with the stage that made it"
        ) from None
