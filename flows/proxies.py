"""Web proxies of the environment: never for this machine's own servers, and refused early where unusable.

Prefect, MLflow and S3 clients read `HTTP_PROXY` and its relatives by themselves, here and in child processes,
also for servers on loopback, which no proxy can reach. What the user has set keeps its meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit

from nanochat.errors import ConfigError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EXCEPTIONS = ("no_proxy", "NO_PROXY")  # programs differ in which of them they read
_SCHEMES = ("http", "https", "socks5", "socks5h")  # what the web clients of Prefect and of model hubs take


def reach_loopback_directly(env: MutableMapping[str, str]) -> None:
    """Add this machine to the hosts that are reached without a proxy; what is there already stays."""
    given = {name: env.get(name, "") for name in _EXCEPTIONS}
    for name in _EXCEPTIONS:
        hosts = _hosts(given[name] or "".join(given.values()))
        # `*` means every host, to some programs only if nothing is beside it.
        every = [*hosts, *(host for host in _LOOPBACK if host not in hosts)]
        env[name] = "*" if "*" in hosts else ",".join(every)


def require_usable_proxies(env: Mapping[str, str]) -> None:
    """Raise ConfigError naming a proxy that no web client here can use, without its password."""
    if any("*" in _hosts(env.get(name, "")) for name in _EXCEPTIONS):
        return
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        value = env.get(name, "")
        scheme = value.partition("://")[0].lower() if "://" in value else "http"
        if scheme not in _SCHEMES:
            host = urlsplit(value).netloc.rpartition("@")[2]
            raise ConfigError(
                f"{name} is {scheme}://{host}; a proxy has to be one of {', '.join(_SCHEMES)}",
                hint=f"write {name}=socks5://{host} if that is what it speaks, or unset {name}",
            )
        if problem := _unreadable(value):
            raise ConfigError(
                f"{name} is not the address of a proxy: {problem}",
                hint=f"write {name}=http://HOST:PORT, or unset {name}",
            )


def _unreadable(value: str) -> str | None:
    """Return what is wrong with an address as such."""
    try:
        _ = urlsplit(value if "://" in value else f"http://{value}").port
    except ValueError as error:
        return str(error)
    return None


def _hosts(text: str) -> list[str]:
    """Return the hosts of a list, IPv6 addresses without the brackets at which Prefect's client fails."""
    parts = [part.strip() for part in text.split(",")]
    return [part[1:-1] if re.fullmatch(r"\[[^]]*\]", part) else part for part in parts if part]
