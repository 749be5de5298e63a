"""What is hashed into the key of a node: stage, version, configuration and digests of the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.stage import Node


def payload_of(node: Node, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return what is hashed into a node's key; `digests` holds every input node's artifact digest."""
    return {
        "stage": node.stage.name,
        "version": node.stage.version,
        "config": node.config.identity(),
        "inputs": {
            name: digests[value] if isinstance(value, str) else [digests[i] for i in value]
            for name, value in node.inputs.items()
        },
    }


class NoDigests(dict[str, str]):
    """A placeholder for the digests of inputs that are not made yet."""

    def __missing__(self, key: str) -> str:
        return "not made yet"
