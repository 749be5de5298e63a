"""Bytes under names: a folder, S3, or any other fsspec filesystem."""
