"""The one training loop and the stages that feed it."""
