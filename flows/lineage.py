"""What a record was made from, back to the corpus. Reads records, never artifacts."""

from __future__ import annotations

from rich.tree import Tree

from flows.gc import input_refs
from flows.stage import Record
from flows.store import Store


def lineage(store: Store, record: Record) -> list[Record]:
    """Return every ancestor's record that still exists, nearest first."""
    found: dict[tuple[str, str], Record] = {}
    frontier = list(input_refs(record))
    while frontier:
        level = store.find_records(ref for ref in frontier if ref not in found)
        found |= level
        frontier = [ref for parent in level.values() for ref in input_refs(parent)]
    return list(found.values())


def lineage_tree(store: Store, record: Record) -> Tree:
    """Draw a record's ancestors; what was drawn already is only named."""
    by_ref = {(r.stage, r.key): r for r in lineage(store, record)}
    drawn: set[tuple[str, str]] = set()

    def grow(parent: Record, branch: Tree) -> None:
        for ref in dict.fromkeys(input_refs(parent)):
            made = by_ref.get(ref)
            if made is None:
                branch.add(f"{ref[0]}/{ref[1][:12]} (record gone)")
            else:
                again = ref in drawn and bool(made.inputs)
                twig = branch.add(
                    f"{made.node}  {made.key[:12]}  digest {made.digest[:12]}{' (above)' if again else ''}"
                )
                if not again:
                    drawn.add(ref)
                    grow(made, twig)

    root = Tree(f"{record.node}  {record.key[:12]}  digest {record.digest[:12]}", highlight=False)
    grow(record, root)
    return root
