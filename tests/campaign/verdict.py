"""What must be true of a site whatever has happened to it, and of one that was left in peace since."""

from __future__ import annotations

from collections.abc import Mapping

from flows.store.verify import verify
from tests.campaign.site import Run, Site


class Broken(Exception):
    """Something that no fault may cause."""


def judge_end(run: Run, reference: Mapping[str, str]) -> str:
    """Return how a run ended: `killed`, `done` or the name of its error; raise Broken for what may not be."""
    said = run.outcome
    if said is None:
        return "killed"
    if "digests" in said:
        if said["digests"] != reference:
            raise Broken(f"a run ended with other digests: {_differing(said['digests'], reference)}")
        return "done"
    if said["error"] == "traceback" or not said["message"]:
        raise Broken(f"a run ended with an error that no user should see: {said}")
    return str(said["error"])


def judge_records(site: Site, reference: Mapping[str, str]) -> None:
    """Raise Broken if the store offers a result that an undisturbed run does not have."""
    offered = {record.node: record.digest for record in site.store().records()}
    if wrong := _differing(offered, reference):
        raise Broken(f"the store has other results: {wrong}")


def judge_peace(site: Site) -> None:
    """Raise Broken if something is damaged or left behind on a site whose last run was not disturbed."""
    if findings := list(verify(site.store())):
        raise Broken(f"verify finds {findings}")
    if left := site.leftovers():
        raise Broken(f"left behind: {left}")


def _differing(some: Mapping[str, str], reference: Mapping[str, str]) -> dict[str, str]:
    return {node: digest for node, digest in some.items() if reference.get(node) != digest}
