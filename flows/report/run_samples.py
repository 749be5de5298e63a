"""What a model wrote while it was trained: for each prompt, the answer at each checkpoint in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.display.quantities import is_number
from flows.report.axes import short
from flows.report.curves import TrainingCurves
from flows.report.record_links import link
from flows.report.recorded_run import RecordedRun

_CHECKPOINTS = 8  # shown of each prompt, from the first to the last


@dataclass(frozen=True)
class SampledAnswer:
    """What was written at one checkpoint."""

    when: str
    text: str
    href: str


@dataclass(frozen=True)
class PromptAnswers:
    """The answers to one prompt as the training went on."""

    prompt: str
    answers: tuple[SampledAnswer, ...]
    left_out: int  # checkpoints between those that are shown


def samples_of(run: RecordedRun, curves: Mapping[str, TrainingCurves]) -> dict[str, list[PromptAnswers]]:
    """Return the samples of each stage that kept some."""
    found = {}
    for node, record in run.records.items():
        by_prompt: dict[str, list[SampledAnswer]] = {}
        for line in run.lines(node, "samples.jsonl"):
            when = _when(line, curves.get(node))
            by_prompt.setdefault(_text(line, "prompt"), []).append(
                SampledAnswer(when, _text(line, "text"), link(record))
            )
        if by_prompt:
            found[node] = [_shown(prompt, answers) for prompt, answers in by_prompt.items()]
    return found


def _shown(prompt: str, answers: list[SampledAnswer]) -> PromptAnswers:
    last = len(answers) - 1
    if last < _CHECKPOINTS:
        return PromptAnswers(prompt, tuple(answers), 0)
    kept = sorted({round(number * last / (_CHECKPOINTS - 1)) for number in range(_CHECKPOINTS)})
    return PromptAnswers(prompt, tuple(answers[i] for i in kept), len(answers) - len(kept))


def _when(line: Mapping[str, Any], curves: TrainingCurves | None) -> str:
    step = line.get("step")
    if not is_number(step):
        return "at an unknown step"
    tokens = curves.amounts.get(int(step or 0)) if curves else None
    return f"step {step:,}" + (f", {short(tokens)} tokens" if tokens else "")


def _text(line: Mapping[str, Any], name: str) -> str:
    """Return a field; a sample of unknown form is shown whole."""
    value = line.get(name)
    if isinstance(value, str):
        return value
    return (
        "" if name == "prompt" else "\n".join(f"{key}: {each}" for key, each in line.items() if key != "step")
    )
