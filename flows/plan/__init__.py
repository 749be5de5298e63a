"""What a run would do and why: the DAG compared with the store, keys, and digests of code."""

from flows.plan.changes import Change
from flows.plan.plan import Plan, Planned, make_plan

__all__ = ["Change", "Plan", "Planned", "make_plan"]
