"""Makes what a plan says: one node, one session, or the whole run as Prefect tasks."""
