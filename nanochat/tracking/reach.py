"""Whether an MLflow server answers at all, asked before MLflow is imported, which takes seconds of CPU."""

from __future__ import annotations

import urllib.error
import urllib.request
from urllib.parse import urlsplit

_TIMEOUT_S = 5.0


def require_answer(uri: str) -> None:
    """Raise OSError if a server gives no answer; whatever it says is one, and MLflow's to understand.

    A database, and a server behind a proxy that only MLflow's own client may know, are not asked.
    """
    address = urlsplit(uri)
    if address.scheme not in ("http", "https") or not address.hostname:
        return
    if urllib.request.getproxies() and not urllib.request.proxy_bypass(address.hostname):
        return
    port = f":{address.port}" if address.port else ""
    host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
    health = f"{address.scheme}://{host}{port}{address.path.rstrip('/')}/health"
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(health, timeout=_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return
    except urllib.error.URLError as error:
        if not _is_about_certificates(error):
            raise


def _is_about_certificates(error: urllib.error.URLError) -> bool:
    return type(error.reason).__name__.startswith(("SSLCert", "SSLError"))
