"""The tasks of CORE and how many items each has in the published bundle.

Data only: what is asked is read from a bundle on disk (`nanochat.evals.core.bundle`), which may hold less.
"""

from __future__ import annotations

CORE_ITEMS = {
    "hellaswag_zeroshot": 10_042,
    "jeopardy": 2_117,
    "bigbench_qa_wikidata": 20_321,
    "arc_easy": 2_376,
    "arc_challenge": 1_172,
    "copa": 100,
    "commonsense_qa": 1_221,
    "piqa": 1_838,
    "openbook_qa": 500,
    "lambada_openai": 5_153,
    "hellaswag": 10_042,
    "winograd": 273,
    "winogrande": 1_267,
    "bigbench_dyck_languages": 1_000,
    "agi_eval_lsat_ar": 230,
    "bigbench_cs_algorithms": 1_320,
    "bigbench_operators": 210,
    "bigbench_repeat_copy_logic": 32,
    "squad": 10_570,
    "coqa": 7_983,
    "boolq": 3_270,
    "bigbench_language_identification": 10_000,
}
"""Label in `core.yaml` -> items."""
