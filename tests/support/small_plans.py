"""Plans of a few tiny stages of any shape, for laws about runs: what they make is known beforehand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from flows import dag
from flows.stage import Node, Stage
from nanochat.config import Config
from nanochat.runtime import Runtime


class SmallConfig(Config):
    """Two values that follow each other give the same bytes under different keys."""

    value: int


@dataclass(frozen=True)
class Shape:
    """The inputs of each node, by number, all smaller than its own."""

    inputs: tuple[tuple[int, ...], ...]

    def nodes(self, values: Sequence[int]) -> tuple[Node, ...]:
        """Return the nodes with these values."""
        return tuple(
            Node(
                id=f"s{n}",
                stage=Stage(name=f"s{n}", version=1, run="tests.support.small_plans:combine"),
                config=SmallConfig(value=values[n]),
                inputs={f"i{i}": f"s{i}" for i in inputs},
            )
            for n, inputs in enumerate(self.inputs)
        )

    def contents(self, values: Sequence[int]) -> dict[str, bytes]:
        """Return what each node makes."""
        made: dict[str, bytes] = {}
        for n, inputs in enumerate(self.inputs):
            made[f"s{n}"] = _content(values[n], [made[f"s{i}"] for i in sorted(inputs)])
        return made


@contextmanager
def planned_as(nodes: tuple[Node, ...]) -> Iterator[None]:
    """Let every recipe be these nodes while the block runs."""
    with mock.patch.object(dag, "build", lambda *_: nodes):
        yield


def combine(config: SmallConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> dict[str, float]:
    """Make a file that depends on the value and on all inputs."""
    content = _content(config.value, [(inputs[name] / "result").read_bytes() for name in sorted(inputs)])
    (out / "result").write_bytes(content)
    return {}


def _content(value: int, inputs: Sequence[bytes]) -> bytes:
    return hashlib.sha256(repr((value // 2, list(inputs))).encode()).digest()
