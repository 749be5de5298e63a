"""The verbs about the store: `ls`, `inspect`, `verify`, `gc`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from flows.cli import output, record_tables
from flows.cli.options import AsJson, Ref, StoreUrl, open_store
from flows.cli.repair import Repaired, repair_all
from flows.cli.signed import PublicKey, WithLineage, signed_folder, verify_folder
from flows.display.quantities import bytes_text
from flows.store.catalog import newest_first
from flows.store.gc import collect
from flows.store.verify import Finding, verify
from nanochat.errors import ConfigError


def list_records(
    stage: Annotated[str | None, typer.Argument(help="Only this stage.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Records on a page.")] = 50,
    page: Annotated[int, typer.Option(min=1, help="Which page; 1 has the newest.")] = 1,
    everything: Annotated[bool, typer.Option("--all", help="All records at once.")] = False,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the records in the store, newest first.

    It shows a page of them; how many there are is printed to stderr.
    """
    _, opened = open_store(store)
    listed = opened.catalog.listed(stage)
    shown = list(listed) if everything else list(listed)[(page - 1) * limit : page * limit]
    records = newest_first(opened.catalog.load_all(shown, listed), listed)
    if as_json:
        output.show_json([r.to_json() for r in records])
    elif records:
        output.show(record_tables.records_table(records))
    elif not listed:
        output.say(f"{opened.url} has no records{f' of stage {stage!r}' if stage else ''} yet")
    if len(shown) < len(listed):
        pages = -(-len(listed) // limit)
        where = f"page {page} of {pages:,} (--page, --limit, --all)"
        output.say(f"{len(shown):,} of {len(listed):,} records: {where}")


def inspect(
    ref: Ref,
    whole: Annotated[
        bool, typer.Option("--all", help="Every artifact of the lineage, not only a few of many shards.")
    ] = False,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show one record: what was hashed, what was made, lineage.

    For tokens, conversations and overlaps with benchmarks it also shows what is in the files.
    """
    from flows.cli.contents import contents
    from flows.cli.record_tables import lineage_tree
    from flows.store.lineage import lineage

    _, opened = open_store(store)
    record = opened.resolve(ref)
    if as_json:
        more = {
            "lineage": [r.to_json() for r in lineage(opened, record)],
            "contents": contents(opened, record),
        }
        output.show_json({**record.to_json(), **more})
        return
    found = contents(opened, record)
    output.show(record_tables.record_text(record, found))
    for sample in (found or {}).get("conversations", ()):
        output.show(record_tables.conversation_text(sample))
    output.show("\nlineage")
    output.show(lineage_tree(opened, record, at_most=None if whole else record_tables.FEW))


def verify_store(
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="[REF|DIR]", help="A stage (its newest record), stage/<key prefix>, or a signed folder."
        ),
    ] = None,
    store: StoreUrl = None,
    mend: Annotated[
        bool, typer.Option("--repair", help="Set damage aside, and say what makes it again and what cannot.")
    ] = False,
    key: PublicKey = None,
    with_lineage: WithLineage = False,
    as_json: AsJson = False,
) -> None:
    """Check everything in the store, or a folder's signature.

    It names what is damaged in the store, or each file of a model folder that is not as its owner signed it.
    """
    if signed := signed_folder(ref, key):
        if mend:
            raise ConfigError("--repair is for a store; a folder that was changed comes from its owner again")
        verify_folder(*signed, open_store(store)[1] if with_lineage else None, as_json=as_json)
        return
    if with_lineage:
        raise ConfigError("--lineage is for a folder, and none is named", hint="name one, such as ./model")
    _, opened = open_store(store)
    findings = list(verify(opened, [ref] if ref else None))
    repaired = repair_all(opened, findings) if mend else []
    if as_json:
        done = [{"done": r.done, "made_again": r.made_again} for r in repaired] or [{}] * len(findings)
        output.show_json([{**asdict(f), **more} for f, more in zip(findings, done, strict=True)])
    else:
        _show_findings(findings, repaired)
    if any(r.lost for r in repaired) if mend else findings:
        raise typer.Exit(1)


def _show_findings(findings: Sequence[Finding], repaired: Sequence[Repaired]) -> None:
    for i, f in enumerate(findings):
        users = ", ".join(f"{stage}/{key[:12]}" for stage, key in f.used_by) or "nothing"
        output.show(f"{f.kind} {f.name}: {f.problem} (used by {users})")
        for line in (repaired[i].done, *repaired[i].made_again) if repaired else ():
            output.show(f"  {line}")
    if not findings:
        output.say("everything is as recorded")
    elif repaired:
        output.say(f"{len(findings)} damaged, of which {sum(r.lost for r in repaired)} cannot be made again")
    else:
        output.say(f"{len(findings)} damaged; `nanochat verify --repair` says what can be made again")


def collect_garbage(
    store: StoreUrl = None,
    grace_hours: Annotated[float, typer.Option(min=0, help="Keep anything younger than this.")] = 168.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    without_roots: Annotated[bool, typer.Option(help="Run even if the store has no roots.")] = False,
    keep: Annotated[list[str] | None, typer.Option(help="Keep this record and its lineage for good.")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove what no finished run and no running plan needs.

    The last result of each run is kept, with everything that it was made from; what runs is safe without a
    grace period as well.
    """
    _, opened = open_store(store)
    kept = [(record.stage, record.key) for ref in keep or () if (record := opened.resolve(ref))]
    for stage, key in () if dry_run else kept:
        opened.set_root(f"keep-{stage}-{key[:12]}", [(stage, key)])
    report = collect(
        opened, grace_s=grace_hours * 3600, dry_run=dry_run, without_roots=without_roots, keep=kept
    )
    if as_json:
        output.show_json(
            {
                "dry_run": dry_run,
                "records": report.records,
                "names": report.names,
                "freed_bytes": report.freed_bytes,
                "kept_records": report.kept_records,
            }
        )
        return
    for stage, key in report.records:
        output.show(f"{stage}/{key[:12]}")
    verb = "would free" if dry_run else "freed"
    output.say(
        f"{verb} {bytes_text(report.freed_bytes)} in {len(report.names)} files"
        f" ({len(report.records)} records); {report.kept_records} records kept"
    )
