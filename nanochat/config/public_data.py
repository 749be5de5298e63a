"""What the hub calls the public data sets that recipes are made from."""

from __future__ import annotations

ARC = "allenai/ai2_arc"
GSM8K = "openai/gsm8k"
HUMANEVAL = "openai/openai_humaneval"
MMLU = "cais/mmlu"
SMOLTALK = "HuggingFaceTB/smol-smoltalk"
