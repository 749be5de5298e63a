"""Engines for a server: one model, found before anything heavy is loaded, on as many devices as there are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from flows.models.find import folder_of, open_model, trained
from flows.stages import PUBLISH
from flows.store import Store

if TYPE_CHECKING:
    from nanochat.chat.engine import Engine
    from nanochat.formats.published import Choice


def find_model(store: Store, ref: str) -> str:
    """Return a name for the model that a reference names; raise as `open_model` does if there is none.

    What a folder holds is seen when it is read.
    """
    if folder := folder_of(ref):
        return folder.resolve().name
    record = store.resolve(ref)
    if record.stage != PUBLISH.name:
        trained(store, record)
        return ref
    # A published model has a title, and its server a name without spaces.
    return "-".join(str(record.payload["config"]["title"]).split())


def make_engines(
    store: Store, ref: str, choice: Choice, *, device: str, weights: str, count: int | None, rows: int
) -> list[tuple[str, Callable[[], Engine]]]:
    """Return the device of each engine, and how it is made: one for each GPU, or `count` on these devices.

    Each writes `rows` answers together. Raises as `nanochat.model.inference_weights.use_weights` does.
    """
    published = open_model(store, ref, choice)
    import torch

    from nanochat.chat.engine import Engine
    from nanochat.model.device import device_of
    from nanochat.model.inference_weights import use_weights

    first = device_of(device)
    several = first.type == "cuda" and first.index is None
    devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] if several else [first]
    # Each device has the weights once, whatever the number of its engines.
    models = {
        place: (published.model if place == devices[-1] else copy.deepcopy(published.model)).to(place)
        for place in devices
    }
    for model in models.values():
        use_weights(model, weights)
    tokenizer = published.tokenizer

    def on(place: torch.device) -> Callable[[], Engine]:
        pace = replace(Engine(models[place], tokenizer).pace, rows=rows)
        return lambda: Engine(models[place], tokenizer, pace)

    places = [devices[i % len(devices)] for i in range(count or len(devices))]
    return [(str(place), on(place)) for place in places]
