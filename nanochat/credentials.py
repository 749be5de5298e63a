"""Passwords, tokens and signatures: where a text has some, and the same text without them.

An address may carry credentials in front of its host or as parameters, and the environment holds others. What
is kept or shown (records, logs, errors, runs in Prefect and MLflow) is to have none: fields that are kept are
refused with them, all other text loses them on its way out. Does not look for secrets of unknown form.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

WAY_OUT = (
    "keep credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, HF_TOKEN) or in"
    " fsspec's configuration below ~/.config/fsspec"
)

# In front of a host: with a web address any name, since it can be a token; elsewhere a name with a password,
# since a name alone is a user or a container. `github://owner:repository@branch` has neither, and digits
# after a colon are a port. A password may have any character that is not a space, quotes included.
_IN_FRONT = re.compile(
    r"\b(?P<scheme>(?!github:)[a-z][a-z0-9+._-]{0,30}://)"
    r"(?:[^\s/@:\[?#\"'<>]*(?::(?!:|\d+(?:[/?#]|$))|%3a)[^\s@]*"
    r"|(?<=http://)[^\s/@?#\"'<>]+|(?<=https://)[^\s/@?#\"'<>]+)"
    r"@(?:[^\s/@\"'<>]*@)*",
    re.IGNORECASE,
)
_WORDS = (
    r"token(?![is])|secret(?!ar)|passw(?:or)?d|passphrase|pwd|signature|credential|bearer"
    r"|(?:api|access|account|private|shared?|subscription)[-_]?key|auth(?!or)|jwt|hmac"
)
# A small number names a session or a key of a data set, not one that opens something.
_PARAMETER = re.compile(
    rf"(?P<name>[?&;#](?:amp;)?(?:[\w.~%\[\]-]*(?:{_WORDS})[\w.~%\[\]-]*=|(?:sig|sas|pw|pass)="
    rf"|(?:[\w.~%-]*session[\w.~%-]*|key)=(?!\d{{1,4}}(?:[\s&;#\"'<>]|$)))[\"']?)[^\s&;#\"'<>]+",
    re.IGNORECASE,
)
_VARIABLE = re.compile(
    r"(?:^|_)(?:token|secret|password|passwd|api_?key|access_?key|secret_?key)$", re.IGNORECASE
)
_SHORTEST = 12  # characters of a variable that is looked for in texts; a shorter one may be any word
_HIDDEN = "***"


def has_credentials(text: str) -> bool:
    """Return whether an address in the text carries a password, token or signature."""
    return "://" in text and bool(_IN_FRONT.search(text) or _PARAMETER.search(text))


def without_credentials(text: str, env: Mapping[str, str] = os.environ) -> str:
    """Return the text without what addresses in it, or variables of the environment, keep secret."""
    if "://" in text:
        text = _IN_FRONT.sub(r"\g<scheme>", text)
    if "=" in text:
        text = _PARAMETER.sub(rf"\g<name>{_HIDDEN}", text)
    for secret in _secrets(env):
        text = text.replace(secret, _HIDDEN)
    return text


def _secrets(env: Mapping[str, str]) -> list[str]:
    """Return the secret values of the environment, the longest first, as one may contain another."""
    found = {value for name, value in env.items() if len(value) >= _SHORTEST and _VARIABLE.search(name)}
    return sorted(found, key=len, reverse=True)
