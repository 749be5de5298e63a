"""A stage's progress in the Prefect UI: a bar with its newest numbers, sent by a thread of its own.

A server that is slow or away delays the bar, never the stage, which must see a stop between two of its steps.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

logger = logging.getLogger(__name__)
_LAST_ONE_S = 3.0  # how long the end of a stage waits for its last numbers to be sent


@dataclass
class ProgressArtifact:
    """Shows the newest numbers every few seconds; what comes between is left out."""

    node_id: str
    link: Callable[[], str | None]
    every_s: float = 5.0
    _newest: tuple[float, str] | None = None
    _artifact: UUID | None = None
    _news: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def log(self, metrics: Mapping[str, float], *, step: int, total_steps: int) -> None:
        """Have the bar shown at this step."""
        numbers = ", ".join(f"{k} {v:.4g}" for k, v in metrics.items())
        self._newest = 100.0 * step / max(total_steps, 1), f"step {step}/{total_steps}: {numbers}"
        self._news.set()
        if self._thread is None:
            context = copy_context()  # Prefect finds the run to which the bar belongs in there
            self._thread = threading.Thread(
                target=lambda: context.run(self._send_on), name="progress-artifact", daemon=True
            )
            self._thread.start()

    def log_params(self, params: Mapping[str, object]) -> None:
        """Parameters are on the flow run."""

    def log_text(self, text: str, *, step: int) -> None:
        """Samples are in the logs and in MLflow."""

    def close(self) -> None:
        """Have the last numbers sent."""
        self._closed.set()
        self._news.set()
        if self._thread:
            self._thread.join(_LAST_ONE_S)

    def _send_on(self) -> None:
        said, sent, closed = False, None, False
        while not closed:
            self._news.wait()
            self._news.clear()
            closed = self._closed.is_set()
            if (newest := self._newest) is sent or newest is None:
                continue
            try:
                self._send(*newest)
                sent = newest
            except Exception as error:  # an error in the UI must not reach the stage
                if not said:
                    logger.warning("progress of %s does not reach Prefect: %s", self.node_id, error)
                said = True
            self._closed.wait(self.every_s)

    def _send(self, percent: float, text: str) -> None:
        link = self.link()
        text += f" — [metrics in MLflow]({link})" if link else ""
        if self._artifact is None:
            key = re.sub("[^a-z0-9]+", "-", f"progress-{self.node_id}".lower())
            self._artifact = create_progress_artifact(percent, key=key, description=text)  # type: ignore[assignment]
        else:
            update_progress_artifact(self._artifact, percent, description=text)
