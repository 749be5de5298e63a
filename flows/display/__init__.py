"""What shows a run to people: progress lines, the Prefect and MLflow pages, the report."""
