"""Where a model comes from, in the words of a file that leaves the store: name, license, source and digest.

A record says it all. A folder from elsewhere has a name, the license that its card states, and its files.
"""

from __future__ import annotations

import re
from pathlib import Path

from flows.models.engines import find_model
from flows.models.find import folder_of
from flows.stages import PUBLISH
from flows.store import Store
from nanochat.file_digest import sha256_of
from nanochat.formats.folder import find_published
from nanochat.formats.gguf_file import Origin
from nanochat.formats.published import Choice
from nanochat.printable import printable

_FRONT_MATTER = 2**16  # characters of a card in which its license is looked for
_LICENSE = re.compile(r"^license: *([A-Za-z0-9][\w.+-]{0,63})$", re.MULTILINE)


def origin_of(store: Store, ref: str, choice: Choice) -> Origin:
    """Return where the model that a reference names comes from; raises as `open_model` does."""
    name = printable(find_model(store, ref))  # a folder is called anything
    if folder := folder_of(ref):
        weights = find_published(folder, choice).weights
        return Origin(
            name=name,
            license=_license(folder / "README.md"),
            source=printable(", ".join(path.name for path in weights)),
            digest=", ".join(sha256_of(path) for path in weights),
        )
    record = store.resolve(ref)
    return Origin(
        name=name,
        license=printable(str(record.payload["config"]["license"])) if record.stage == PUBLISH.name else None,
        source=f"{record.stage}/{record.key}",
        digest=record.digest,
    )


def _license(card: Path) -> str | None:
    """Return the license in the front matter of a model card, if there is one."""
    if not card.is_file():
        return None
    with card.open(encoding="utf-8", errors="replace") as file:
        text = file.read(_FRONT_MATTER)
    found = _LICENSE.search(text.split("\n---", 2)[0]) if text.startswith("---\n") else None
    return found[1] if found else None
