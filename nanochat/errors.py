"""The tree of errors that reach a user.

NanochatError
├── ConfigError          a recipe or setting that cannot work
├── DataError            input that cannot be read or is not what it says
│   └── SourceUnavailable  it does not answer; trying again later may help
├── StoreError           the artifact store cannot do what was asked
│   ├── StoreUnavailable   it cannot be reached (never taken for a miss)
│   ├── Damaged            bytes are missing or differ from their hash
│   └── LeaseLost          another holder took over this stage
├── TrainingError        a training step went wrong
├── Interrupted          the user or the system asked to stop; work so far is kept
└── StageFailed          a stage of a run failed; names it and the way on

Each message says what, the value, the limit; `hint` says the way out and is shown on its own line.
"""

from __future__ import annotations


class NanochatError(Exception):
    """Base of all errors that a user is meant to read."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(NanochatError):
    """A recipe, field or setting that cannot work."""


class DataError(NanochatError):
    """Input data that cannot be read or is not what it claims to be."""


class SourceUnavailable(DataError):
    """A source of data that does not answer; trying again later may help."""


class StoreError(NanochatError):
    """The artifact store cannot do what was asked."""


class StoreUnavailable(StoreError):
    """The store cannot be reached: an error, never a miss."""


class Damaged(StoreError):
    """Stored bytes are missing or do not match their hash."""


class LeaseLost(StoreError):
    """Another holder took over this stage; nothing may be published."""


class TrainingError(NanochatError):
    """A training step that must not be taken, such as a loss that is not finite."""


class Interrupted(NanochatError):
    """The run was asked to stop; what is finished is kept."""


class StageFailed(NanochatError):
    """A stage of a run failed."""
