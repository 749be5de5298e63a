"""Our models and the tasks we ask them, for lm-evaluation-harness (the package lm-eval)."""
