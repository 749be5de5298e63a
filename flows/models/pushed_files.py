"""A model on its way to the hub: which files it is published as, and that none of them holds a secret.

It goes as transformers (safetensors) and as nanochat read it; with one of 2026 goes the code that
transformers needs. Not here: the hub (`nanochat.publish.hub_upload`), and asking the user.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from flows.models.account import write_account
from flows.models.find import folder_of
from flows.models.import_export import Format, export_model
from flows.stages import PUBLISH
from flows.store import Store
from nanochat.credentials import has_credentials, without_credentials
from nanochat.errors import ConfigError
from nanochat.formats.published import Choice
from nanochat.publish.hub_upload import content_names
from nanochat.publish.standalone import standalone_script

Forms = Literal["both", "nanochat", "transformers"]
_TEXTS = {".json", ".md", ".py", ".txt", ".jinja"}
_BESIDE = ("README.md", "results.json")
# Of the hub, of code hosts and of clouds, and private keys; what an address carries is looked for as well.
_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{20}|gh[pousr]_[A-Za-z0-9]{30}|github_pat_\w{30}|glpat-[\w-]{20}"
    r"|sk-[A-Za-z0-9_-]{20}|A(?:KI|SI)A[0-9A-Z]{16}(?![0-9A-Za-z])|AIza[\w-]{35})"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
)


def gather(
    store: Store, ref: str, forms: Forms, choice: Choice, folder: Path, *, account: bool = False
) -> list[str]:
    """Write what is to be pushed to a new folder; return the paths below it.

    With `account` what the model was made from is among it.

    Raises ConfigError for a text that holds a secret or is a link, and as `export_model` does.
    """
    folder.mkdir(parents=True)
    chosen: list[Format] = ["transformers", "nanochat"] if forms == "both" else [forms]
    for form in chosen:
        part = folder.with_name(f"{folder.name}.{form}")
        export_model(store, ref, part, form=form, layout="flat", choice=choice)
        shutil.copytree(part, folder, dirs_exist_ok=True)
        shutil.rmtree(part)
    _add_card(store, ref, folder)
    if "nanochat" in chosen:
        (folder / "generate_cpu.py").write_text(standalone_script(), encoding="utf-8")
    if account:
        write_account(store, ref, folder)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    refuse_secrets(folder, paths, os.environ)
    return paths


def _add_card(store: Store, ref: str, folder: Path) -> None:
    """Put card and results beside the model, where it has them."""
    given = folder_of(ref)
    record = None if given else store.resolve(ref)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        if record and record.stage == PUBLISH.name:
            given = store.fetch(record, Path(scratch) / "published", attachments=True)
        for name in _BESIDE:
            if given and (given / name).is_file():
                shutil.copyfile(_not_elsewhere(given / name), folder / name)


def _not_elsewhere(path: Path) -> Path:
    """Return a path; raise ConfigError for a link that may lead to any file of the user's.

    Links of a store, and of the hub's cache, lead to files that are called by their content.
    """
    if path.is_symlink() and path.resolve().name not in content_names(path):
        raise ConfigError(f"{path} is a link, which is not followed", hint="put the file itself there")
    return path


def refuse_secrets(folder: Path, paths: list[str], env: Mapping[str, str]) -> None:
    """Raise ConfigError for the first text that holds a key, a token or a password; it is not shown.

    One in another encoding than UTF-8, in which none would be found, is refused as well.
    """
    for path in paths:
        if Path(path).suffix not in _TEXTS:
            continue
        for number, line in enumerate(_text(folder, path).splitlines(), start=1):
            if _SECRET.search(line) or has_credentials(line) or without_credentials(line, env) != line:
                raise ConfigError(
                    f"{path}, line {number}, holds a key, a token or a password; nothing was pushed",
                    hint="take it out of the recipe's card or of the file, and publish again",
                )


def _text(folder: Path, path: str) -> str:
    with suppress(UnicodeDecodeError):
        text = (folder / path).read_text(encoding="utf-8")
        if "\0" not in text:  # of UTF-16, where letters are valid UTF-8 as well
            return text
    raise ConfigError(f"{path} is not text in UTF-8; nothing was pushed", hint="save it as UTF-8")
