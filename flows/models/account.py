"""What the store knows of a model's making, written into its folder; and such a folder held against a store.

Not here: the forms of what is written (`nanochat.publish.made_from`, `bill_of_materials`), and signatures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.models.find import folder_of
from flows.stages import TRAINED
from flows.store import Record, Store
from flows.store.lineage import lineage
from flows.store.verify import verify
from nanochat.errors import DataError
from nanochat.file_digest import sha256_of
from nanochat.publish import bill_of_materials, made_from
from nanochat.publish.made_from import Ancestor, MadeFrom


def write_account(store: Store, ref: str, folder: Path) -> None:
    """Write what a model was made from into its folder; of one from elsewhere nothing is known."""
    if folder_of(ref) is None:
        record = store.resolve(ref)
        records = [each.to_json() for each in (record, *lineage(store, record))]
        bill_of_materials.write_bill_of_materials(folder, records, TRAINED)
        made_from.write_statement(folder, records)


def differences(store: Store, folder: Path) -> Iterator[str]:
    """Say what a store has otherwise than a folder's statement names it; nothing is made or changed.

    Raises DataError for a folder without a statement.
    """
    said = made_from.read_statement(folder)
    if said is None:
        raise DataError(
            f"{folder} does not say what it was made from",
            hint="a model exported from a store with --sign does; leave out --lineage",
        )
    known = store.find_records((each.stage, each.key) for each in said.ancestors)
    yield from _of_records(said, known)
    published = said.ancestors[0]
    if record := known.get((published.stage, published.key)):
        yield from _of_files(folder, record)
    for finding in verify(store, [f"{stage}/{key}" for stage, key in known]):
        yield f"{finding.kind} {finding.name}: {finding.problem}"


def _of_records(said: MadeFrom, known: dict[tuple[str, str], Record]) -> Iterator[str]:
    for each in said.ancestors:
        record = known.get((each.stage, each.key))
        if record is None:
            yield f"{_short(each)} is not in the store"
        elif record.digest != each.digest:
            yield f"{_short(each)} has the digest {record.digest[:12]}, not {each.digest[:12]}"


def _of_files(folder: Path, record: Record) -> Iterator[str]:
    for file in record.files:
        path = folder / file.path
        if path.is_file() and sha256_of(path) != file.sha256:
            yield f"{file.path} is not what {record.stage}/{record.key[:12]} holds"


def _short(ancestor: Ancestor) -> str:
    return f"{ancestor.stage}/{ancestor.key[:12]}"
