"""What is hashed into the key of a node: stage, version, configuration and digests of the inputs.

And the key of a whole plan, known before anything is made: what a run is called by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flows.stage import Node
from flows.store.fingerprint import fingerprint


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


def key_of_all(nodes: Iterable[Node]) -> str:
    """Return the hash of everything that the results of these nodes depend on, besides each other."""
    return fingerprint([payload_of(node, NoDigests()) for node in nodes])
