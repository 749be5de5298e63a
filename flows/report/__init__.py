"""One run as a page that stands alone: made from records and the files they name, nothing else."""
