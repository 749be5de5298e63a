"""A page as one file that loads and runs nothing: the template, its style, and the policy that says so.

Everything that templates are passed is text, which is escaped. The browser is asked to refuse whatever is not
the style that belongs to the page.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nanochat.credentials import without_credentials
from nanochat.errors import ConfigError
from nanochat.printable import printable
from nanochat.writing import whole_file

_MARK = b'<meta name="generator" content="nanochat">'  # in every page's first line


def write_page(template: str, target: Path, **context: Any) -> Path:
    """Render a template of this package to `target`; return it.

    Raises ConfigError where `target` is something else than an earlier page of ours.
    """
    require_replaceable(target)
    style = files("flows.report").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = _environment().get_template(template).render(style=style, style_digest=digest, **context)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as part:
        part.write_bytes(page.encode())
    return target


def require_replaceable(target: Path) -> None:
    """Raise ConfigError where writing a page would destroy what is not one."""
    if not target.exists():
        return
    if target.is_file():
        with target.open("rb") as file:
            if _MARK in file.read(500):
                return
    raise ConfigError(f"{target} exists and is not a report", hint="name a new file: FILE.html")


def _shown(value: object) -> object:
    """Return a text without credentials, and with the escape of what acts or hides: half a character too."""
    if isinstance(value, str) and not hasattr(value, "__html__"):  # which pieces of the page itself have
        return printable(without_credentials(value))
    return value


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("flows.report", package_path="."),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
