"""What a flow run can be given: types from which Prefect's server checks a run before it is scheduled.

The server knows nothing of this package. It has the JSON schema of these types, as they were when the
deployments were made, and its UI makes a form of it. What a schema cannot say (a value that a field of the
recipe refuses) is found by the flow as it begins, and by `nanochat submit` before.
"""

from __future__ import annotations

import re
import threading
from typing import Annotated, Any

from pydantic import BaseModel, Field, GetJsonSchemaHandler

from flows.stages import IMPORT, STAGES
from nanochat import recipes
from nanochat.config import Recipe
from nanochat.recipes.overrides import field_names
from nanochat.runtime import DEVICES, Runtime

# A name and password in front of a host, or a web address's token: the plain form of `nanochat.credentials`.
_WITHOUT_PASSWORD = {
    "not": {"pattern": r"(?<!github)://[^\s/@:]*:(?!\d+[/?#])[^\s@]*@|https?://[^\s/@]+@"},
}


class _NameOfPreset:
    """Lists the presets in the schema; in this process `recipes.named` has the better message."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core_schema), "enum": list(recipes.PRESETS)}


class _NamesField:
    """Lists every field in the schema, whichever preset has it."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        presets = [recipes.find(name) for name in recipes.PRESETS]
        names = dict.fromkeys(name for preset in presets for name, _, _ in field_names(preset))
        return {
            **handler(core_schema),
            "pattern": f"^({'|'.join(map(re.escape, names))})=",
            **_WITHOUT_PASSWORD,
        }


class _HasNoPassword:
    """Lets the server refuse an address with a password before it keeps it."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core_schema), **_WITHOUT_PASSWORD}


class _NameOfStage:
    """Lists the stages in the schema; in this process `flows.plan` has the better message."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core_schema), "enum": [name for name in STAGES if name != IMPORT.name]}


RecipeOrName = Annotated[str, _NameOfPreset, Field(title="Preset")] | Recipe
"""A preset by name, or a whole recipe as `nanochat show RECIPE --json` prints it."""
Override = Annotated[str, _NamesField]
"""One changed field, `field=value`."""
StoreUrl = Annotated[str, _HasNoPassword]
"""Where the store is."""
StageName = Annotated[str, _NameOfStage]
"""A stage; whether the recipe has it is found when it is planned."""


class RuntimeParameters(BaseModel):
    """Where and how fast; nothing here changes what is produced."""

    device: str = Field(default="cpu", pattern=DEVICES, description="cpu, cuda, or one GPU such as cuda:3")
    threads: int | None = Field(default=None, gt=0, description="CPU threads; empty: all cores")
    workers: int | None = Field(default=None, gt=0, description="shards in parallel; empty: one per core")
    micro_batch_rows: int | None = Field(default=None, gt=0, description="rows per forward pass")
    processes: int | None = Field(
        default=None,
        gt=0,
        description="ranks that train and evaluate together; empty: one per GPU with device cuda, else 1",
    )
    restart_point_every_s: float = Field(default=30.0, gt=0, description="seconds between restart points")
    retries: int = Field(default=2, ge=0, description="retries of a stage after a transient error")
    restarts: int = Field(
        default=10,
        ge=0,
        description="how often a stage on a work pool may crash or be killed without getting further",
    )
    retry_delay_s: float = Field(default=5.0, ge=0, description="before the first retry; doubled each time")

    def to_runtime(self, stop: threading.Event) -> Runtime:
        """Return the settings as stage functions take them; `stop` ends the run early."""
        given = self.model_dump(exclude={"processes", "retries", "restarts", "retry_delay_s"})
        processes = self.processes or (_gpus() if self.device == "cuda" else 1)
        return Runtime(**{k: v for k, v in given.items() if v is not None}, processes=processes, stop=stop)


def _gpus() -> int:
    import torch

    return max(torch.cuda.device_count(), 1)
