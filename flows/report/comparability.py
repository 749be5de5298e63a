"""Which numbers of two runs mean the same: losses per token, bits per byte, scores; and why others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.report.recorded_run import RecordedRun
from flows.stages import EVALUATIONS, PRETRAIN
from flows.store import Record

# Settings of an evaluation that say which results there are, or where they came about, not what they are.
_SELECTING = {"chat_tasks", "core", "prompts", "allow_unsafe_code"}

_PER_TOKEN = {"train/loss", "val/loss"}


@dataclass(frozen=True)
class Comparability:
    """What may be compared, and in words what may not."""

    same_tokens: bool  # losses per token are of the same tokens
    same_text: bool  # bits per byte are of the same text
    remarks: tuple[str, ...]

    def allows(self, measure: str) -> bool:
        """Return whether a number of a training, such as `val/bpb`, means the same in both runs."""
        if measure in _PER_TOKEN:
            return self.same_tokens
        return self.same_text or measure != "val/bpb"


def comparability(first: RecordedRun, second: RecordedRun) -> Comparability:
    """Return what of two runs may be compared; what no record says is taken to be the same."""
    remarks = []
    same_tokens = _same(_tokenizer(first), _tokenizer(second))
    if not same_tokens:
        remarks.append(
            "They have different tokenizers: losses are per token and not comparable; bits per byte are."
        )
    same_text = _same(_validation_text(first), _validation_text(second))
    if not same_text:
        remarks.append("They are validated on different texts: bits per byte are not comparable.")
    amounts = [_config(run.records.get(PRETRAIN.name)).get("eval_tokens") for run in (first, second)]
    if same_text and _same(*amounts) is False:
        remarks.append(
            f"Bits per byte are measured on the first {_count(amounts[0])} and {_count(amounts[1])} tokens of"
            " the validation text."
        )
    elif same_text and not same_tokens and amounts[0] is not None:
        remarks.append(
            f"Bits per byte are measured on the first {_count(amounts[0])} tokens of each tokenizer,"
            " and so on parts of the text that differ in length."
        )
    remarks += [text for model in EVALUATIONS if (text := _evaluations(model, first, second))]
    return Comparability(same_tokens, same_text, tuple(dict.fromkeys(remarks)))


def _evaluations(model: str, first: RecordedRun, second: RecordedRun) -> str | None:
    """Return why the scores of a model are not of the same questions asked in the same way, or None."""
    stage = EVALUATIONS[model]
    ours, theirs = first.records.get(stage.name), second.records.get(stage.name)
    if ours is None or theirs is None:
        return None
    if not _same(_input(ours, "tasks"), _input(theirs, "tasks")):
        return f"The {model} models were asked other problems: a difference of their scores is not paired."
    if not _same(ours.payload.get("version"), theirs.payload.get("version")):
        return f"The {model} models were judged by different versions of {stage.name}."
    configs = [_config(record) for record in (ours, theirs)]
    names = [
        name
        for name in dict.fromkeys((*configs[0], *configs[1]))
        if name not in _SELECTING and configs[0].get(name) != configs[1].get(name)
    ]
    return f"The {model} models were asked with other settings: {', '.join(names)}." if names else None


def _tokenizer(run: RecordedRun) -> str | None:
    made = run.records.get("tokenizer")
    trained = next((run.records[name] for name in run.trained()), None)
    return made.digest if made else _input(trained, "tokenizer") if trained else None


def _validation_text(run: RecordedRun) -> str | None:
    """Return the digest of the text behind the validation tokens, of which each tokenizer makes others."""
    base = run.records.get(PRETRAIN.name)
    value = base.inputs.get("val_tokens") if base else None
    tokens = run.records.get(str(value.get("node"))) if isinstance(value, Mapping) else None
    return _input(tokens, "shard") if tokens else None


def _input(record: Record, name: str) -> str | None:
    value = record.inputs.get(name)
    return str(value["digest"]) if isinstance(value, Mapping) and "digest" in value else None


def _config(record: Record | None) -> Mapping[str, Any]:
    config = record.payload.get("config") if record else None
    return config if isinstance(config, Mapping) else {}


def _same(first: object, second: object) -> bool:
    """Return whether two values are the same, as far as both are known."""
    return first is None or second is None or first == second


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
