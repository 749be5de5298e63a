"""Flow runs of the configured Prefect server: created, looked at, named and cancelled through its API.

Each question is asked once: whoever asks decides how long to go on asking a server that does not answer. What
a flow run does is in `flows.pipeline`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Cancelling, Crashed
from prefect.utilities.urls import url_for
from pydantic import ValidationError

from nanochat.errors import ConfigError, is_refusal, is_transient

_ANSWER_WITHIN_S = 10.0
_PAGE = 200  # the most that the API returns at once
_MADE_UP_NAME = re.compile(r"[a-z]+-[a-z]+")  # what Prefect calls a run that nobody named


@dataclass(frozen=True)
class FlowRunNow:
    """A flow run as the server has it at one moment."""

    id: str
    name: str
    state: str  # such as Running or AwaitingRetry
    kind: str  # one of Prefect's types of states, such as RUNNING or SCHEDULED
    message: str
    final: bool

    @property
    def completed(self) -> bool:
        """Whether it ended well."""
        return self.kind == "COMPLETED"

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked it to end."""
        return self.kind in ("CANCELLING", "CANCELLED")

    @property
    def page(self) -> str | None:
        """Address of its page."""
        return url_for("flow-run", obj_id=self.id)


@dataclass(frozen=True)
class FlowRuns:
    """The server's flow runs; a server that does not answer raises what its client raises."""

    client: SyncPrefectClient

    def create(self, deployment: str, name: str, parameters: Mapping[str, Any]) -> FlowRunNow:
        """Create a run of a deployment; raise ConfigError if there is none or it refuses the parameters."""
        if deployment.count("/") != 1 or not all(deployment.split("/")):
            raise ConfigError(
                f"{deployment!r} does not name a deployment",
                hint="write FLOW/NAME, such as nanochat/cpu; `prefect deployment ls` lists them",
            )
        try:
            found = self.client.read_deployment_by_name(deployment)
            return as_now(
                self.client.create_flow_run_from_deployment(found.id, parameters=dict(parameters), name=name)
            )
        except ObjectNotFound:
            raise ConfigError(
                f"the Prefect server at {PREFECT_API_URL.value()} has no deployment {deployment!r}",
                hint="make it, in the checkout: prefect --no-prompt deploy --all",
            ) from None
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in (409, 422):
                raise
            raise ConfigError(f"{deployment} refuses the run: {_detail(error)}") from None

    def now(self, flow_run_id: str) -> FlowRunNow:
        """Return how a run stands."""
        return as_now(self.client.read_flow_run(UUID(flow_run_id)))

    def tasks(self, flow_run_id: str) -> dict[str, str]:
        """Return the state of each task of a run that has begun, by the name of its newest task run."""
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
        states: dict[str, str] = {}
        offset = 0
        while True:
            page = self.client.read_task_runs(flow_run_filter=of_run, limit=_PAGE, offset=offset)
            for task in page:
                # What stands for a stage's own flow run has a made-up name; the stage is there as a task too.
                begun = task.state_name and task.state_name != "Pending"
                if begun and not _MADE_UP_NAME.fullmatch(task.name):
                    states[task.name] = str(task.state_name)
            offset += len(page)
            if len(page) < _PAGE:
                return states

    def cancel(self, flow_run_id: str) -> None:
        """Ask a run to end; one that no worker has begun ends at once."""
        self.client.set_flow_run_state(UUID(flow_run_id), Cancelling())

    def set_cancelled(self, flow_run_id: str, why: str) -> None:
        """Record that a run has ended because it was cancelled."""
        self.client.set_flow_run_state(UUID(flow_run_id), Cancelled(message=why), force=True)

    def set_crashed(self, flow_run_id: str, why: str) -> None:
        """Record that a run has ended without its own doing."""
        self.client.set_flow_run_state(UUID(flow_run_id), Crashed(message=why))

    def name(self, flow_run_id: str, name: str, *, instead_of: Sequence[str] = ()) -> None:
        """Name a run that has a made-up name or one of `instead_of`; a name that a person chose stays."""
        now = self.now(flow_run_id)
        if now.name in instead_of or _MADE_UP_NAME.fullmatch(now.name):
            self.client.set_flow_run_name(UUID(flow_run_id), name)


@contextmanager
def flow_runs() -> Iterator[FlowRuns]:
    """Open the flow runs of the configured server; raise ConfigError if none is configured."""
    if not PREFECT_API_URL.value():
        raise ConfigError(
            "no Prefect server is configured",
            hint="export PREFECT_API_URL=http://SERVER:4200/api; infra/README.md starts one",
        )
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": _ANSWER_WITHIN_S}, sync_client=True) as client,
    ):
        yield FlowRuns(client)


@contextmanager
def in_words() -> Iterator[None]:
    """Raise as ConfigError what says that there is no server of Prefect, or none that lets us in."""
    where = f"the Prefect server at {PREFECT_API_URL.value()}"
    try:
        yield
    except (httpx.InvalidURL, JSONDecodeError, ValidationError) as error:
        raise ConfigError(
            f"{where} does not answer as one: {str(error).partition(chr(10))[0]}",
            hint="correct PREFECT_API_URL, such as http://SERVER:4200/api",
        ) from error
    except ObjectNotFound as error:
        raise ConfigError(f"{where} no longer has the run: somebody has deleted it") from error
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        if status not in (401, 403):
            raise
        raise ConfigError(
            f"{where} lets nobody in without the right credentials (status {status})",
            hint="set PREFECT_API_AUTH_STRING or PREFECT_API_KEY as the server asks",
        ) from error


def is_away(error: BaseException) -> bool:
    """Return whether a server that raised this may answer a moment later."""
    if isinstance(error, PrefectHTTPStatusError):
        return not is_refusal(error)
    return is_transient(error)


def as_now(run: FlowRun) -> FlowRunNow:
    """Return what we need of Prefect's own object."""
    state = run.state
    return FlowRunNow(
        id=str(run.id),
        name=run.name,
        state=(state.name if state else None) or "Pending",
        kind=state.type.value if state else "PENDING",
        message=(state.message if state else None) or "",
        final=state is not None and state.is_final(),
    )


def _detail(error: PrefectHTTPStatusError) -> str:
    """Return what the server says about a request that it refused."""
    try:
        detail = error.response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return error.response.text
    return detail if isinstance(detail, str) else str(detail)
