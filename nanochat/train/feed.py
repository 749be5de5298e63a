"""Token ids on their way from arrays to the device that trains on them.

On a GPU they travel through pinned memory on a stream of their own, while the GPU computes earlier steps and
without anyone waiting: whoever uses them makes its own stream wait. On a CPU tensors share the memory of the
arrays. What is sent, and how far ahead, is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
Pair = tuple[Ints, Ints]


@dataclass(frozen=True)
class Sent:
    """Pairs of tensors that are on the device, or will be once an event has happened."""

    pairs: Sequence[tuple[Tensor, Tensor]]
    arrival: torch.cuda.Event | None = None

    def received(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pairs for use on the current stream."""
        for pair in self.pairs:
            if self.arrival is not None:
                stream = torch.cuda.current_stream(pair[0].device)
                stream.wait_event(self.arrival)
                for tensor in pair:
                    tensor.record_stream(stream)  # not to be overwritten before that stream has read it
            yield pair


class Feed:
    """Sends pairs of arrays to a device; any thread may call it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = _stream(device)

    def send(self, pairs: Sequence[Pair]) -> Sent:
        """Begin to move the pairs; return at once."""
        found = [(torch.from_numpy(inputs), torch.from_numpy(targets)) for inputs, targets in pairs]
        if self._stream is None:
            return Sent([(inputs.to(self.device), targets.to(self.device)) for inputs, targets in found])
        # A new thread's current device is the first one, where pinning memory would take some of that GPU's.
        with torch.cuda.device(self._stream.device), torch.cuda.stream(self._stream):
            moving = [(self._move(inputs), self._move(targets)) for inputs, targets in found]
            return Sent(moving, self._stream.record_event())

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    made: Any = torch.cuda.Stream  # has no annotations
    stream: torch.cuda.Stream | None = made(device) if device.type == "cuda" else None
    return stream
