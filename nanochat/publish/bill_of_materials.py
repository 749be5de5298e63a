"""The packages of the environment that trained a model, as a CycloneDX bill of materials.

From the store's records alone: the same records give the same bytes. Scanners of vulnerabilities and licences
read it. Not here: packages of whoever reads or runs the model.
"""

from __future__ import annotations

import uuid
from collections.abc import Container, Mapping
from datetime import datetime
from pathlib import Path

from nanochat.errors import ConfigError
from nanochat.publish.made_from import Records
from nanochat.publish.signature import HOW_TO_INSTALL

FILE_NAME = "sbom.cdx.json"
_NAMESPACE = uuid.UUID("7a1c6c0e-6f0e-5b1d-9d5e-3f6f4a3f2b10")  # of the serial numbers of these files


def write_bill_of_materials(folder: Path, records: Records, stages: Container[str]) -> None:
    """Write the packages of those stages, which trained; none if their records name none, as older ones."""
    trained = [record for record in records if record["stage"] in stages]
    packages: dict[tuple[str, str], list[str]] = {}
    for record in trained:
        named: Mapping[str, str] = record["provenance"].get("packages") or {}
        for name, version in named.items():
            packages.setdefault((name, version), []).append(record["node"])
    if not packages:
        return
    finished = max(str(record["provenance"]["finished_at"]) for record in trained)
    (folder / FILE_NAME).write_text(_text(packages, finished), encoding="utf-8")


def _text(packages: Mapping[tuple[str, str], list[str]], finished: str) -> str:
    try:
        from cyclonedx.model import Property
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output.json import JsonV1Dot6
        from packageurl import PackageURL
    except ImportError as error:
        raise ConfigError(
            f"a bill of materials needs packages that are not installed: {error.name}",
            hint=HOW_TO_INSTALL,
        ) from error
    model = Component(name="nanochat-model", type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref="model")
    components = [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"pkg:pypi/{name}@{version}",
            purl=PackageURL("pypi", None, name, version),
            properties=[Property(name="nanochat:trained", value=", ".join(nodes))],
        )
        for (name, version), nodes in sorted(packages.items())
    ]
    bom = Bom(components=components, serial_number=uuid.uuid5(_NAMESPACE, repr(sorted(packages.items()))))
    bom.metadata.timestamp = datetime.fromisoformat(finished)
    bom.metadata.component = model
    bom.register_dependency(model, components)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
