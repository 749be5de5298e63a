from __future__ import annotations

import json
from pathlib import Path

from nanochat.config import EvaluateConfig
from nanochat.evals.protocol import protocol, protocol_lines

PAGE = (Path(__file__).parents[4] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_a_protocol_is_plain_data_with_all_that_numbers_depend_on():
    found = protocol(EvaluateConfig(max_problems=7), with_core=True)
    assert json.loads(json.dumps(found)) == found
    assert found["judging"].keys() == {"choice", "math", "code", "core"}
    assert found["subset"]["chat"]["max_problems"] == 7
    assert (found["subset"]["core"]["seed"], found["few_shot"]["seed"]) == (1337, 1234)
    assert found["generation"]["seed"] is None  # greedy: nothing is drawn
    assert found["precision"] == "float32"
    assert "few_shot" not in protocol(EvaluateConfig(), with_core=False)


def test_the_lines_of_a_protocol_say_which_problems_and_how_answers_are_written():
    drawn = EvaluateConfig(num_samples=4, temperature=0.8, top_k=None, max_problems=7)
    lines = protocol_lines(protocol(drawn, with_core=False))
    assert (
        "written answers: 4 drawn to each problem, temperature 0.8, top all, seed 42, at most 512 tokens"
        in lines
    )
    assert any(line.startswith("chat problems: at most 7 of each task") for line in lines)
    assert "chat problems: all" in protocol_lines(protocol(EvaluateConfig(), with_core=False))


def test_the_page_has_each_rule_with_its_version():
    found = protocol(EvaluateConfig(), with_core=True)
    for rule in found["judging"].values():
        assert f"`{rule['name']}` | {rule['version']} |" in PAGE
    assert f"rule `{found['calculator']['name']}`, version {found['calculator']['version']}" in PAGE
