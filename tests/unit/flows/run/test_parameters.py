"""Parameters of a flow run as Prefect's server checks them: its own validator on the deployment's schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate
from typer.testing import CliRunner

from flows.cli.app import app
from flows.pipeline import pipeline
from nanochat import recipes
from nanochat.errors import ConfigError

ROOT = Path(__file__).parents[4]
DEPLOYED = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"][0]
SCHEMA = parameter_schema(pipeline).model_dump_for_openapi()


def check(**parameters):
    """Raise what the server raises for a run of `nanochat/cpu` with these parameters."""
    validate({**DEPLOYED["parameters"], **parameters}, SCHEMA, raise_on_error=True)


def shown(*words):
    return json.loads(CliRunner().invoke(app, ["show", *words, "--json"]).stdout)


def test_a_run_without_parameters_is_the_toy():
    check()
    assert SCHEMA["properties"]["recipe"]["default"] == "toy"
    assert DEPLOYED["name"] == "cpu" and DEPLOYED["entrypoint"] == "flows.pipeline.pipeline"


@pytest.mark.parametrize("name", ["toy", "d20", "2026-d26"])
def test_a_preset_is_taken_by_its_name_and_as_show_prints_it(name):
    check(recipe=name)
    check(recipe=shown(name))
    assert pipeline.validate_parameters({"recipe": shown(name)})["recipe"] == recipes.find(name)


def test_overrides_are_lists_of_known_fields():
    check(recipe="d20", overrides=["depth=6", "sft.epochs=2", "tasks.toy.seed=1", "name=of my own"])


@pytest.mark.parametrize(
    ("wrong", "sign"),
    [
        ({"recipe": "d21"}, "'d21' is not one of ['toy', "),
        ({"recipe": 20}, "20 is not valid"),
        ({"recipe": {**shown("toy"), "depht": 4}}, "'depht' was unexpected"),
        ({"recipe": {**shown("toy"), "depth": "deep"}}, "recipe.depth"),
        ({"overrides": ["depht=4"]}, "'depht=4' does not match"),
        ({"overrides": ["sft.epochs 2"]}, "'sft.epochs 2' does not match"),
        ({"overrides": "depth=6"}, "is not of type 'array'"),
        ({"until": "pretrian"}, "'pretrian' is not one of ['download', "),
        ({"force": ["sft", "import"]}, "'import' is not one of ['download', "),
        ({"store": "s3://key:hidden@bucket/x"}, "should not be valid under"),
        ({"overrides": ["corpus.source=https://me:hidden@host/x"]}, "should not be valid under"),
        ({"overrides": ["corpus.source=https://hidden@host/x"]}, "should not be valid under"),
        ({"dispatch": "cloud"}, "cloud"),
        ({"runtime": {"device": "tpu"}}, "'tpu' does not match"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_server_refuses_what_is_wrong_and_names_it(wrong, sign):
    with pytest.raises(ValidationError) as refused:
        check(**wrong)
    assert sign in str(refused.value)


def test_addresses_without_a_password_are_taken():
    sources = ["https://host:8000/x@v1", "github://owner:repository@branch/x", "hf://datasets/a/b@v1", "/a/b"]
    check(store="s3://bucket/a@b", overrides=[f"corpus.source={source}" for source in sources])


def test_a_name_or_a_whole_recipe_with_overrides_is_one_recipe():
    by_name = recipes.named("toy", ["sft.epochs=2"])
    assert by_name == recipes.find("toy", ["sft.epochs=2"])
    assert recipes.named(recipes.find("toy"), ["sft.epochs=2"]) == by_name
    assert recipes.named("toy", ["depth=6"]).model.n_layer == 6
    with pytest.raises(ConfigError, match="depth cannot be overridden in a whole recipe"):
        recipes.named(recipes.find("toy"), ["depth=6"])
