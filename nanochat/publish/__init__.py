"""What leaves the pipeline: the published folder and its model card."""
