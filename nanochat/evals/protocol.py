"""How the numbers of an evaluation came about: plain data that is kept with them, under `protocol`.

Each judging rule has a name and a version that is raised when the rule judges any reply otherwise. Rules are
upstream's; where something differs on purpose, `differs` says what. Says only how it is done: who does it is
`choice`, `generative`, `humaneval`, `core.score` and `problem_sets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nanochat.config import EvaluateConfig
from nanochat.evals.core.bundle import SHOTS_SEED, SHUFFLE_SEED
from nanochat.evals.problem_sets import SUBSET_SEED

_JUDGED = {
    "choice": {
        "name": "likeliest_letter",
        "version": 1,
        "rule": "the likeliest of the problem's letters, by the logits where the answer begins",
    },
    "math": {
        "name": "first_number_after_hashes",
        "version": 2,
        "rule": "the text of the number after the first '#### ', without commas, is that of the answer",
    },
    "code": {
        "name": "program_passes_tests",
        "version": 3,
        "rule": "imports at the head of the prompt, the first fenced block or else the whole reply, run in a"
        " jail with a __name__ that is not __main__ and no other globals; the problem's tests, run in another"
        " process, end without an exception within five seconds of the program's processor time and 256 MiB",
        "differs": "results reach the tests as plain data, so that what a program does to its interpreter or"
        " its exit code forges nothing; programs have the standard library alone, where upstream's"
        " interpreter also has the packages it was installed with, such as numpy and torch; they can neither"
        " write files nor start threads or processes; upstream's five seconds are of the clock. Upstream of"
        " July 2026 (but not of October 2025, whose rule this is) runs main guards, and takes an exit with"
        " code 0 for success",
    },
}
_UNSAFE = (
    "programs may have run without a jail, and have had whatever effect they liked (--allow-unsafe-code)"
)
_CORE = {
    "name": "dclm",
    "version": 1,
    "rule": "choices and schemas by the lowest mean loss, continuations by whether each token is the"
    " likeliest",
}
_CALCULATOR = {
    "name": "exact",
    "version": 1,
    "rule": 'the value of + - * / and parentheses, worked out exactly, or of "text".count("part")',
    "differs": "results are written as GSM8K's data has them, 10/2 as 5 and 6*0.10 as 0.6, where upstream"
    " writes 5.0 and 0.6000000000000001: 97 % of those in the data come out alike, upstream's in 73 %;"
    " `//` has no value, where upstream divides and rounds down (2 of 26,996)",
}


def protocol(config: EvaluateConfig, *, with_core: bool, precision: str = "float32") -> dict[str, Any]:
    """Return judging rules, few-shot seeds, the rule for subsets, and how answers are written."""
    found: dict[str, Any] = {
        "judging": dict(_JUDGED),
        "subset": {
            "chat": {
                "rule": "the first of numpy.random.default_rng(seed).permutation(rows); rows made from a list"
                " of words in their order",
                "seed": SUBSET_SEED,
                "max_problems": config.max_problems,
            }
        },
        "generation": {
            "num_samples": config.num_samples,
            "temperature": config.temperature,
            "top_k": config.top_k if config.temperature else None,
            "seed": config.seed if config.temperature else None,
            "max_new_tokens": config.max_new_tokens,
        },
        "calculator": dict(_CALCULATOR),
        "precision": precision,
    }
    if config.allow_unsafe_code:
        found["judging"]["code"] = _JUDGED["code"] | {"unsafe": _UNSAFE}
    if with_core:
        found["judging"]["core"] = dict(_CORE)
        found["subset"]["core"] = {
            "rule": "the first after random.Random(seed).shuffle(items)",
            "seed": SHUFFLE_SEED,
            "max_problems": config.core_max_problems,
        }
        found["few_shot"] = {
            "rule": "random.Random(seed + item).sample of the other items",
            "seed": SHOTS_SEED,
        }
    return found


def protocol_lines(protocol: Mapping[str, Any]) -> list[str]:
    """Return a protocol in words, a line for each part of it."""
    written, rules = protocol["generation"], protocol["judging"] | {"calculator": protocol["calculator"]}
    lines = [_rule_line(part, rule) for part, rule in rules.items()]
    how = "the likeliest token each time"
    if written["temperature"]:
        how = (
            f"{written['num_samples']} drawn to each problem, temperature {written['temperature']},"
            f" top {written['top_k'] or 'all'}, seed {written['seed']}"
        )
    lines.append(f"products of matrices: {protocol['precision']}")
    lines.append(f"written answers: {how}, at most {written['max_new_tokens']} tokens")
    for part, rule in protocol["subset"].items():
        limit = rule["max_problems"]
        asked = (
            "all" if limit is None else f"at most {limit} of each task, {rule['rule']}, seed {rule['seed']}"
        )
        lines.append(f"{part} problems: {asked}")
    return lines


def _rule_line(part: str, rule: Mapping[str, Any]) -> str:
    differs = f". Differs from upstream: {rule['differs']}" if "differs" in rule else ""
    unsafe = f". NOT JAILED: {rule['unsafe']}" if "unsafe" in rule else ""
    return f"{part} ({rule['name']}, version {rule['version']}): {rule['rule']}{differs}{unsafe}"
