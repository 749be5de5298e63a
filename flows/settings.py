"""Where things are kept and how fast they run on this machine: read from the environment once, at the edge.

None of it is part of a result. Command-line options take precedence over these variables:
`NANOCHAT_HOME` (default: `nanochat` in `XDG_CACHE_HOME`), `NANOCHAT_STORE`, `NANOCHAT_DOLLARS_PER_HOUR`,
`MLFLOW_TRACKING_URI`, `NANOCHAT_MLFLOW_WAIT_S`, `PREFECT_API_URL`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nanochat.credentials import WAY_OUT, has_credentials, without_credentials
from nanochat.errors import ConfigError
from nanochat.sqlite_urls import sqlite_url

# SQLite opens no file with a path of more than 512 bytes; the longest of ours below the home needs 40.
_MAX_HOME_BYTES = 470


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of this machine and user."""

    home: Path
    store_url: str
    mlflow_uri: str
    mlflow_asked: bool = False  # the user named the MLflow address, and wants to see every run there
    mlflow_wait_s: float = 10.0  # how long a whole run may wait for MLflow
    prefect_api_url: str | None = None
    dollars_per_hour: float | None = None

    @property
    def cache(self) -> Path:
        """Where files of a remote store are kept on this machine."""
        return cache_folder(self.home)

    @property
    def scratch(self) -> Path:
        """Where running stages have their folders."""
        return self.home / "scratch"

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ, *, store: str | None = None) -> Settings:
        """Read the settings; `store` (from the command line) wins over `NANOCHAT_STORE`."""
        home = home_folder(env)
        name, url = "--store", store
        if store is None:
            name, url = "NANOCHAT_STORE", env.get("NANOCHAT_STORE") or None
        return cls(
            home=home,
            store_url=checked_store_url(name, url) or str(home / "store"),
            mlflow_uri=env.get("MLFLOW_TRACKING_URI") or sqlite_url(home / "mlflow.db"),
            mlflow_asked=bool(env.get("MLFLOW_TRACKING_URI")),
            prefect_api_url=env.get("PREFECT_API_URL"),
            mlflow_wait_s=_number(env, "NANOCHAT_MLFLOW_WAIT_S", 10.0),
            dollars_per_hour=_price(env.get("NANOCHAT_DOLLARS_PER_HOUR")),
        )


def home_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for everything of this user that does not have another place."""
    caches = Path(env.get("XDG_CACHE_HOME") or "~/.cache")
    chosen = Path(env.get("NANOCHAT_HOME") or caches / "nanochat")
    try:
        home = chosen.expanduser().absolute()
    except RuntimeError:
        raise ConfigError(
            f"the home folder is {str(chosen)!r}, and there is no such user here",
            hint="set NANOCHAT_HOME to the path of a folder",
        ) from None
    _require_home(home)
    return home


def cache_folder(home: Path | None = None) -> Path:
    """Return the folder for files of a remote store, below `home` or the home of the environment."""
    return (home or home_folder()) / "cache"


def _require_home(home: Path) -> None:
    """Raise ConfigError if databases could not be kept there, or its path not be written down."""
    elsewhere = "set NANOCHAT_HOME to another folder; a symbolic link will do"
    size = len(os.fsencode(home))
    if size > _MAX_HOME_BYTES:
        raise ConfigError(
            f"the path of the home folder has {size} bytes, more than the {_MAX_HOME_BYTES} that leave room"
            f" for its databases: {str(home)[:60]}…",
            hint=elsewhere,
        )
    if any(ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF for char in str(home)):
        raise ConfigError(
            f"the path of the home folder has control characters or is not UTF-8: {str(home)!r}",
            hint=elsewhere,
        )


def checked_store_url(name: str, url: str | None) -> str | None:
    """Return the address of the store; raise ConfigError for one that Prefect and MLflow must not keep."""
    if url and has_credentials(url):
        raise ConfigError(
            f"{name} is {without_credentials(url)} with a password, token or signature, which would be kept"
            " with every run",
            hint=WAY_OUT,
        )
    if url is not None and (not url.strip() or any(ord(char) < 32 for char in url)):
        raise ConfigError(f"{name} is {url!r}, which is not an address", hint=_STORES)
    if url and (_WEB.match(url) or _ONE_SLASH.match(url)):
        what = "a page of the web, which cannot be written" if _WEB.match(url) else "not an address"
        raise ConfigError(f"{name} is {url}, {what}", hint=_STORES)
    return url


_STORES = "use a folder (./NAME if its name looks like an address), s3://bucket/prefix or another fsspec URL"
_WEB = re.compile(r"https?://", re.IGNORECASE)
_ONE_SLASH = re.compile(r"[a-z0-9]{2,}:/(?!/)", re.IGNORECASE)  # would be a folder in the current one


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    return _at_least_0(name, text, example=default) if text else default


def _price(text: str | None) -> float | None:
    return _at_least_0("NANOCHAT_DOLLARS_PER_HOUR", text, example=24) if text else None


def _at_least_0(name: str, text: str, *, example: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ConfigError(
            f"{name} is {text!r}, not a number from 0 on", hint=f"set it to a number such as {example:g}"
        )
    return number
