"""`verify --repair` in words: what has become of each damaged thing, and which run makes it again.

What is set aside is decided by `flows.store.verify`; here is what a pipeline can do about it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from flows.stages import IMPORT, STAGES
from flows.store import Ref, Store
from flows.store.verify import Finding, repair


@dataclass(frozen=True)
class Repaired:
    """What was done about one finding."""

    done: str
    made_again: tuple[str, ...]  # for each record that cannot be used because of it: how it comes back
    lost: bool  # some of them cannot be made again by a run


def repair_all(store: Store, findings: Iterable[Finding]) -> list[Repaired]:
    """Set aside what is damaged; say of each record that used it what makes it again."""
    return [_repair(store, finding) for finding in findings]


def _repair(store: Store, finding: Finding) -> Repaired:
    done = repair(store, finding)
    lost = finding.kind == "root" or any(not _can_be_made(ref) for ref in finding.used_by)
    return Repaired(done, tuple(_made_again(store, ref) for ref in finding.used_by), lost)


def _can_be_made(ref: Ref) -> bool:
    return ref[0] in STAGES and ref[0] != IMPORT.name


def _made_again(store: Store, ref: Ref) -> str:
    stage, name = ref[0], f"{ref[0]}/{ref[1][:12]}"
    if stage == IMPORT.name:
        return f"{name} cannot be made again: import the model again from its folder"
    if stage not in STAGES:
        return f"{name} cannot be made again: there is no stage {stage!r} here"
    known = store.catalog.load_all([ref]).get(ref)
    node = known.node if known else stage
    recipe = known.provenance.get("recipe") if known else None
    command = f"nanochat run {shlex.quote(recipe) if recipe else 'RECIPE'} --until {stage}"
    asked = " with the overrides of that run" if recipe else ", with the recipe that made it,"
    if known and not known.inputs:
        return f"{node} ({name}): `{command}`{asked} fetches it again, if its source still has it"
    return f"{node} ({name}): `{command}`{asked} makes it again, with inputs that are gone"
