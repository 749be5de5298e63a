"""What differs between two runs: hashed fields, what they were made with, and the numbers they left.

Only differences are here, each once however many shards it is about. What cannot be compared is said in words
and left out of the numbers. Scores are compared in `flows.report.score_difference`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flows.display.quantities import is_number
from flows.report.comparability import Comparability, comparability
from flows.report.record_links import link
from flows.report.recorded_run import RecordedRun
from flows.report.score_difference import ScoreDifference, score_differences
from flows.run.headline import headline
from flows.stages import STAGES, TRAINED
from flows.store import Record
from nanochat.runtime import dotted

_SIZES = ("parameters", "tokens", "flops", "hours", "dollars")
_OF_TRAINING = ("steps", "train/loss", "val/bpb", "val/loss", "tokens_per_s", "mfu")
_SURROUNDINGS = ("commit", "dirty", "device", "processes", "threads", "versions", "hardware")
_LONGEST = 80  # characters of a value
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class FieldDifference:
    """One field that has another value in the second run; None where a run does not have it."""

    field: str
    first: str | None
    second: str | None
    stages: tuple[str, ...]  # in which it differs


@dataclass(frozen=True)
class NumberDifference:
    """One number that has another value in the second run."""

    name: str
    values: tuple[float | None, float | None]
    links: tuple[str, str]

    @property
    def change(self) -> float | None:
        """Return by which part of the first the second is larger."""
        first, second = self.values
        return None if first is None or second is None or not first else second / first - 1


@dataclass(frozen=True, kw_only=True)
class RunDifference:
    """All that differs between two runs."""

    names: tuple[str, str]
    runs: tuple[RecordedRun, RecordedRun]
    only: tuple[tuple[str, ...], tuple[str, ...]]  # nodes that one of them has a record of
    alike: tuple[str, ...]  # nodes whose artifacts have the same bytes
    fields: tuple[FieldDifference, ...]
    surroundings: tuple[FieldDifference, ...]  # which never change a key: code, machines, packages
    other_code: tuple[str, ...]  # stages of which another version of the code made the record
    numbers: tuple[NumberDifference, ...]
    scores: tuple[ScoreDifference, ...]
    equal_scores: int
    comparability: Comparability

    @property
    def is_none(self) -> bool:
        """Return whether the two are the same in all that is compared."""
        parts = (*self.only, self.fields, self.surroundings, self.other_code, self.numbers, self.scores)
        return not any(parts) and len(self.alike) == len(self.runs[0].records)


def difference_of(names: tuple[str, str], first: RecordedRun, second: RecordedRun) -> RunDifference:
    """Compare two runs; what is damaged becomes a problem of its run."""
    both = [node for node in first.records if node in second.records]
    pairs = [(first.records[node], second.records[node]) for node in both]
    known = comparability(first, second)
    scores, equal = score_differences(first, second)
    return RunDifference(
        names=names,
        runs=(first, second),
        only=(_lacked_by(second, first), _lacked_by(first, second)),
        alike=tuple(a.node for a, b in pairs if a.digest == b.digest),
        fields=_differing(pairs, _hashed, by_stage=True),
        surroundings=_differing(pairs, _surroundings, by_stage=False),
        other_code=tuple(dict.fromkeys(a.stage for a, b in pairs if _code(a) != _code(b))),
        numbers=tuple(_numbers(first, second, known)),
        scores=scores,
        equal_scores=equal,
        comparability=known,
    )


def _lacked_by(one: RecordedRun, other: RecordedRun) -> tuple[str, ...]:
    """Return the nodes of another run that a run does not have, and that it does not only wait for."""
    return tuple(node for node in other.records if node not in one.records and node not in one.absent)


def _differing(
    pairs: Iterable[tuple[Record, Record]], fields: Callable[[Record], Mapping[str, Any]], *, by_stage: bool
) -> tuple[FieldDifference, ...]:
    """Return the fields that differ, those with the same values in several nodes once."""
    found: dict[tuple[str, str | None, str | None], dict[str, None]] = {}
    for first, second in pairs:
        one, other = fields(first), fields(second)
        for name in dict.fromkeys((*one, *other)):
            if one.get(name) != other.get(name):
                label = f"{first.stage}.{name}" if by_stage else name
                key = (label, _text(one, name), _text(other, name))
                found.setdefault(key, {})[first.stage] = None
    return tuple(FieldDifference(*key, tuple(stages)) for key, stages in found.items())


def _hashed(record: Record) -> Mapping[str, Any]:
    config = record.payload.get("config")
    fields = dotted(_by_name(config)) if isinstance(config, Mapping) else {}
    version = record.payload.get("version")
    return fields if version is None else {**fields, "version": version}


def _surroundings(record: Record) -> Mapping[str, Any]:
    return dotted({name: record.provenance[name] for name in _SURROUNDINGS if name in record.provenance})


def _code(record: Record) -> object:
    return record.provenance.get("code_digest")


def _by_name(value: Any) -> Any:
    """Return settings with each list of settings, such as a mixture, by the names of its members."""
    if isinstance(value, Mapping):
        return {str(name): _by_name(each) for name, each in value.items()}
    if isinstance(value, list | tuple) and value and all(isinstance(each, Mapping) for each in value):
        named: dict[str, Any] = {}
        for number, each in enumerate(value):
            name = str(each.get("task") or each.get("path") or number)
            named[f"{name} {number}" if name in named else name] = _by_name(each)
        return named
    return value


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    if name not in fields:
        return None
    value = fields[name]
    if isinstance(value, str) and _HASH.fullmatch(value):
        return value[:12]
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = text or "(empty)"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _numbers(first: RecordedRun, second: RecordedRun, known: Comparability) -> Iterable[NumberDifference]:
    ours, theirs = headline(first.records), headline(second.records)
    for name in _SIZES:
        if ours.get(name) != theirs.get(name):
            yield NumberDifference(name, (ours.get(name), theirs.get(name)), ("", ""))
    for node in [name for name in TRAINED if name in first.records and name in second.records]:
        records = (first.records[node], second.records[node])
        for name in _OF_TRAINING:
            if not known.allows(name):
                continue
            values = [_number(record, name) for record in records]
            if values[0] != values[1]:
                links = (link(records[0]), link(records[1]))
                yield NumberDifference(f"{node} {name}", (values[0], values[1]), links)


def _number(record: Record, name: str) -> float | None:
    value = record.metrics.get(name)
    return float(value) if is_number(value) else None


def grouped(nodes: Iterable[str]) -> str:
    """Return nodes by stage: `download (3), tasks, tokenizer`."""
    counts: dict[str, list[str]] = {}
    for node in nodes:
        counts.setdefault(node.partition("/")[0], []).append(node)
    order = sorted(counts, key=lambda stage: [*STAGES, stage].index(stage))
    return ", ".join(
        stage if counts[stage] == [stage] else f"{stage} ({len(counts[stage]):,})" for stage in order
    )
