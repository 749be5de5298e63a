"""Where a published model comes from, as an in-toto statement that other programs read.

`provenance.json` names every file of the folder and every artifact that it was made from by digest, the code,
the recipe and the packages, all from the store's records, in the form of SLSA's provenance (v1). It proves
nothing alone: the folder's signature (`nanochat.publish.signature`) covers it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.errors import DataError
from nanochat.file_digest import sha256_of

FILE_NAME = "provenance.json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
_BUILD = "urn:nanochat:pipeline:v1"
_REF = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]{0,199})/([0-9a-f]{64})")
_SHA256, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40,64}")

Records = Sequence[Mapping[str, Any]]
"""Records of the store as plain data; a published model's own comes first."""


@dataclass(frozen=True)
class Ancestor:
    """An artifact of the store that a model was made from, or is."""

    stage: str
    key: str
    digest: str

    @property
    def ref(self) -> str:
        """Return the name by which the command line knows it."""
        return f"{self.stage}/{self.key}"


@dataclass(frozen=True)
class MadeFrom:
    """What a statement says."""

    recipe: str | None
    commit: str | None
    ancestors: tuple[Ancestor, ...]  # the published model's own artifact first


def write_statement(folder: Path, records: Records) -> None:
    """Write the statement about a folder's files beside them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    subjects = [
        {"name": path.relative_to(folder).as_posix(), "digest": {"sha256": sha256_of(path)}} for path in files
    ]
    statement = {
        "_type": _STATEMENT,
        "subject": subjects,
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD,
                "externalParameters": {
                    "recipe": records[0]["provenance"].get("recipe"),
                    "configs": _configs(records),
                },
                "resolvedDependencies": [*_code(records), *map(_dependency, records), *_lost(records)],
            },
            "runDetails": _run(records),
        },
    }
    text = json.dumps(statement, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
    (folder / FILE_NAME).write_text(text, encoding="utf-8")


def read_statement(folder: Path) -> MadeFrom | None:
    """Return what a folder's statement says; None without one. It is worth as much as what signs it."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        return _said(json.loads(path.read_text(encoding="utf-8"))["predicate"]["buildDefinition"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a statement of this project: {error!r}") from error


def _said(definition: Any) -> MadeFrom:
    """Return what a definition says; its parts become names of files and lines of a terminal."""
    given = definition["resolvedDependencies"]
    commits = [
        _formed(_COMMIT, each["digest"]["gitCommit"])[0] for each in given if "gitCommit" in each["digest"]
    ]
    ancestors = tuple(
        Ancestor(*_pair(each["name"]), _formed(_SHA256, each["digest"]["sha256"])[0])
        for each in given
        if "sha256" in each["digest"]
    )
    recipe = definition["externalParameters"]["recipe"]
    if not ancestors:
        raise ValueError("it names no artifact")
    if recipe is not None and not str.isprintable(recipe):
        raise ValueError(f"{recipe!r} is not a recipe's name")
    return MadeFrom(recipe, commits[0] if commits else None, ancestors)


def _pair(name: str) -> tuple[str, str]:
    found = _formed(_REF, name)
    return found[1], found[2]


def _formed(form: re.Pattern[str], text: str) -> re.Match[str]:
    if found := form.fullmatch(text):
        return found
    raise ValueError(f"{text[:100]!r} is neither a digest nor an artifact's name")


def _configs(records: Records) -> dict[str, Any]:
    """Return the configuration of each node, but of the many that differ in their shard alone only one."""
    found: dict[str, Any] = {}
    for record in records:
        found.setdefault(record["node"].partition("/")[0], record["payload"].get("config"))
    return found


def _code(records: Records) -> list[dict[str, Any]]:
    """Return each commit that one of the records was made by, the newest record's first."""
    found: dict[tuple[str, bool], list[str]] = {}
    for record in records:
        made = record["provenance"]
        if made.get("commit"):
            found.setdefault((made["commit"], bool(made.get("dirty"))), []).append(record["node"])
    return [
        {
            "name": "code",
            "digest": {"gitCommit": commit},
            "annotations": {"changed_since": dirty, "nodes": nodes},
        }
        for (commit, dirty), nodes in found.items()
    ]


def _dependency(record: Mapping[str, Any]) -> dict[str, Any]:
    made = record["provenance"]
    return {
        "name": f"{record['stage']}/{record['key']}",
        "digest": {"sha256": record["digest"]},
        "annotations": {
            "node": record["node"],
            "code_digest": made.get("code_digest"),
            "finished_at": made.get("finished_at"),
            "files": {file["path"]: file["sha256"] for file in record["files"]},
        },
    }


def _lost(records: Records) -> list[dict[str, Any]]:
    """Return the inputs that the records name and that have none any more: their digests are known still."""
    there = {(record["stage"], record["key"]) for record in records}
    lost: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        for given in (record.get("inputs") or {}).values():
            for each in [given] if isinstance(given, Mapping) else given:
                if (each["stage"], each["key"]) not in there:
                    lost[each["stage"], each["key"]] = {
                        "name": f"{each['stage']}/{each['key']}",
                        "digest": {"sha256": each["digest"]},
                        "annotations": {"node": each.get("node"), "record": "gone"},
                    }
    return list(lost.values())


def _run(records: Records) -> dict[str, Any]:
    made = [record["provenance"] for record in records]
    times = {
        "startedOn": min((each["started_at"] for each in made if each.get("started_at")), default=None),
        "finishedOn": max((each["finished_at"] for each in made if each.get("finished_at")), default=None),
    }
    versions = made[0].get("versions") or {}
    return {
        "builder": {"id": "urn:nanochat", "version": versions},
        "metadata": {name: _zulu(when) for name, when in times.items() if when},
    }


def _zulu(when: str) -> str:
    """Return a time of a record as in-toto writes it."""
    return when.replace("+00:00", "Z")
