"""What a run would do and why: the DAG compared with the store, keys, and digests of code."""

from flows.plan.changes import Change
from flows.plan.plan import Plan, make_plan
from flows.plan.planned import Planned

__all__ = ["Change", "Plan", "Planned", "make_plan"]
