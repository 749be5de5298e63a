"""Which nodes of a plan may start now: those whose inputs are done, up to a limit per stage.

Every stage has a lane of its own, so that training the tokenizer and tokenizing run alongside downloads that
are still in progress, and no lane can starve another. Knows nothing about threads, Prefect or results: a
failed node counts as done, and whoever starts its followers finds out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flows.dag import input_ids
from flows.stage import Node


class Scheduler:
    """The waiting, running and finished nodes of one run, in the order of the plan."""

    def __init__(self, nodes: Sequence[Node], workers: int) -> None:
        """Let up to `workers` nodes of a stage run in parallel, unless the stage itself sets a limit."""
        self._workers = workers
        self._waiting = {node.id: node for node in nodes}
        self._inputs_left = {node.id: set(input_ids(node)) & self._waiting.keys() for node in nodes}
        self._followers: dict[str, list[str]] = {node.id: [] for node in nodes}
        for node_id, inputs in self._inputs_left.items():
            for i in inputs:
                self._followers[i].append(node_id)
        self._running: dict[str, Node] = {}
        self._in_lane = Counter[str]()

    @property
    def all_done(self) -> bool:
        """Whether no node is waiting or running."""
        return not self._waiting and not self._running

    def take_ready(self) -> list[Node]:
        """Return the nodes that are to start now, and count them as running."""
        taken = []
        for node in self._waiting.values():
            room = (node.stage.at_once or self._workers) - self._in_lane[node.stage.name]
            if room > 0 and not self._inputs_left[node.id]:
                self._in_lane[node.stage.name] += 1
                taken.append(node)
        for node in taken:
            self._running[node.id] = self._waiting.pop(node.id)
        return taken

    def done(self, node_id: str) -> None:
        """Record that a running node has ended, successfully or not."""
        node = self._running.pop(node_id)
        self._in_lane[node.stage.name] -= 1
        for follower in self._followers[node_id]:
            self._inputs_left[follower].discard(node_id)
