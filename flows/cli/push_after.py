"""`run --push`: what can keep a push from ending well is looked at before hours of work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.cli.push import Pushed, PushTarget, push_model, target_of
from flows.cli.signed import signing
from flows.plan import Plan
from flows.settings import Settings
from flows.stages import PUBLISH
from flows.store import Record, Store
from nanochat.errors import ConfigError
from nanochat.formats.published import Choice


@dataclass(frozen=True)
class Pushing:
    """A push that is to follow a run."""

    target: PushTarget
    signed: Callable[[Path], None] | None
    yes: bool

    @classmethod
    def of(cls, name: str | None, key: Path | None, plan: Plan, *, yes: bool) -> Pushing | None:
        """Prepare a push to a page of the hub, None without one; a password is asked for now.

        Raises ConfigError for what would only be found at the end.
        """
        if name is None:
            if key or yes:
                raise ConfigError(f"{'--sign' if key else '--yes'} is for what --push sends")
            return None
        if PUBLISH.name not in plan.by_id:
            raise ConfigError("this run does not publish, and has nothing to push", hint="leave out --until")
        if not yes and not sys.stdin.isatty():
            raise ConfigError("--push asks before it sends, and nobody is there", hint="agree with --yes")
        return cls(target_of(name, public=False), signing(key), yes)

    def push(self, store: Store, settings: Settings, published: Record) -> Pushed:
        """Push what the run has published."""
        ref, scratch = f"{published.stage}/{published.key}", settings.scratch
        return push_model(
            self.target, store, scratch, ref, "both", Choice(), signed=self.signed, yes=self.yes
        )
