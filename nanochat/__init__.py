"""The model and its training as plain functions; knows nothing of Prefect, stores or fingerprints."""
