"""Carries out a plan: one node, one session, or the whole run as Prefect tasks."""
