"""Which code a stage reaches, and a digest of it: so that a code change is a decision, not an accident.

A stage reaches the top-level statement that defines its run function, from there each one that defines a name
it uses, and so on, through imports and packages that re-export names (`flows.plan.code_reach`). The digest
covers the set of these statements without imports, docstrings, bare strings and the names of modules, so that
code may move from file to file.

`flows/stages.lock` keeps the digests that were reviewed; a test fails when they differ, until the author
raises the stage's version or confirms "same result" with `python -m flows.plan.confirm_code`. Digests are
not part of a key.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from flows.plan.code_reach import Code
from flows.stage import Stage
from flows.stages import IMPORT, STAGES

LOCK = Path(__file__).parents[1] / "stages.lock"


@cache  # plans ask for each of thousands of nodes
def code_digest(stage: Stage) -> str:
    """Return the sha256 of all code of ours that the stage's run function reaches."""
    return _code().digest(stage.run)


@cache
def _code() -> Code:
    return Code(Path(__file__).parents[2])


def current() -> dict[str, dict[str, object]]:
    """Return version and code digest of every stage, as the lock file holds them."""
    stages = (*STAGES.values(), IMPORT)
    return {stage.name: {"version": stage.version, "code": code_digest(stage)} for stage in stages}
