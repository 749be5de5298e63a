"""What becomes part of a path: hostile values are refused in every such field, ordinary names are taken."""

from __future__ import annotations

import json
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest

from nanochat import recipes
from nanochat.config import Config, MixtureEntry, OverlapConfig, ShardConfig, SourceFile
from nanochat.config.names import checked_name, checked_place
from nanochat.data.sources.transfer import source_file
from nanochat.errors import ConfigError, DataError
from nanochat.evals.core.bundle import load_core

# Hostile wherever they stand, even as the path of a file.
NO_PLACES = (
    *("", ".", "..", "../..", "../../etc/passwd", "a/../b", "a/..", "/", "/etc/passwd", "//host/share"),
    *("./a", "a//b", "a/", "\\\\host\\share", "C:\\Windows", "..\\..\\x", "a\\b", " ", " a", "a ", "a/ b"),
    *("a\0b", "a\nb", "a\rb", "\x1b[2J", "a\u202eb", "a\u200bb", "\ud800", "a" * 256, "b/" * 600 + "b"),
)
# These are file names that a user may have, but no names of our own making.
NO_NAMES = (
    *("a/b", "~", "~root", "$HOME", "$(id)", "`id`", "a;b", "a|b", "a&b", "a b", "a'b", 'a"b', "*", "a?"),
    *("-rf", ".hidden", "é", "a%2fb", "..%2f..", "a#b", "a:b", "s3:x", "{a}", "a=b", "a,b", "a@b", "c" * 101),
)
MIX = "[{task: %s}]"
FIELDS = {  # an override whose value becomes part of a path -> whether it is a name of our own making
    "name={}": True,
    "evaluate.chat_tasks=[{}]": True,
    "sft.mixture=[{{task: gsm8k, split: {}}}]": True,
    "sft.mixture=[{{task: {}}}]": False,
    "midtrain.mixture=[{{task: {}}}]": False,
    "midtrain.validation=[{{task: {}}}]": False,
    "tasks.files=[{{path: {}}}]": False,
}


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_a_recipe_takes_what_leads_out_of_its_folder(field):
    hostile = (*NO_PLACES, *NO_NAMES) if FIELDS[field] else NO_PLACES
    assert len(hostile) >= 30
    for text in hostile:
        value = text if field.startswith("name") else json.dumps(text)
        if value.strip() in ("a", "") and field.startswith("name"):
            continue  # spaces around a value are the command line's
        with pytest.raises(ConfigError) as caught:
            recipes.find("toy", [field.format(value)])
        assert caught.value.hint and str(caught.value).isprintable(), text


@pytest.mark.parametrize("check", [checked_name, checked_place])
def test_every_hostile_name_is_refused_with_the_way_out(check):
    for text in (*NO_PLACES, *(NO_NAMES if check is checked_name else ())):
        with pytest.raises(ValueError, match="use ") as caught:
            check(text)
        assert len(str(caught.value)) < 2000


def test_a_resolved_configuration_is_checked_too():
    for text in NO_PLACES:
        for make in (
            lambda text: SourceFile(path=text),
            lambda text: MixtureEntry(task=text),
            lambda text: ShardConfig(name=text),
            lambda text: OverlapConfig(ngram_words=3, core=False, chat_tasks=(text,)),
        ):
            with pytest.raises(ValueError):
                make(text)


def test_files_that_a_source_lists_cannot_leave_the_folder_they_are_put_into():
    for text in NO_PLACES:
        with pytest.raises(DataError, match=r"^tasks\.source: "):
            source_file(text, {"size": 1, "mtime": 1.0}, "tasks.source")


def test_a_core_bundle_names_no_file_outside_of_it(tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"query": "q", "choices": ["a"], "gold": 0}\n')
    (tmp_path / "core").mkdir()
    (tmp_path / "core/eval_meta_data.csv").write_text("Eval Task,Random baseline\nx,25\n")
    for place in ("../../secret.jsonl", str(secret)):
        task = {"label": "x", "icl_task_type": "multiple_choice", "dataset_uri": place, "num_fewshot": [0]}
        (tmp_path / "core/core.yaml").write_text(json.dumps({"icl_tasks": [task]}))
        with pytest.raises(DataError, match="not the path of a file below its folder"):
            load_core(tmp_path, None)


@pytest.mark.parametrize("name", ["toy", "my-run_2.1", "2026-d12", "a", "A" * 100, "_x"])
def test_ordinary_names_are_taken(name):
    assert recipes.find("toy", [f"name={name}"]).name == name


@pytest.mark.parametrize(
    "place", ["own/my #1.jsonl", "tasks/mmlu/auxiliary_train.parquet", "Łódź/東京 (2).jsonl"]
)
def test_files_keep_the_names_that_their_user_gave_them(place):
    assert SourceFile(path=place).path == place


def test_a_name_that_cannot_be_is_answered_with_one_that_can():
    with pytest.raises(ConfigError, match=r"name: '\.\./my run' is not a name: .* such as 'my-run'"):
        recipes.find("toy", ["name=../my run"])


# Text that no path of ours is made of; whoever adds a field decides whether it is one of these.
FREE_TEXT = {
    *(
        "CorpusConfig.source",
        "ShardConfig.url",
        "TasksConfig.source",
        "TasksConfig.core_url",
        "TasksConfig.own",
    ),
    *("TasksConfig.words_url", "TasksConfig.identity_url"),
    *("CorpusConfig.revision", "CorpusConfig.val_shard", "TasksConfig.revision"),
    *(
        "ShardConfig.version",
        "SourceFile.version",
        "ImportConfig.folder",
        "ImportConfig.source",
        "ImportConfig.tag",
    ),
    *("PublishConfig.title", "PublishConfig.license", "PublishConfig.datasets", "ModelConfig.window_pattern"),
    *(f"CardConfig.{name}" for name in ("summary", "developed_by", "trained_by", "author", "corpus")),
    *(f"CardConfig.{name}" for name in ("infrastructure", "uses", "downstream_uses", "limitations")),
    *("CardConfig.out_of_scope_uses", "CitationConfig.author", "CitationConfig.title"),
    *("PretrainConfig.prompts", "MidtrainConfig.prompts", "SftConfig.prompts", "EvaluateConfig.prompts"),
}


def _subclasses(cls):
    return {cls, *(below for sub in cls.__subclasses__() for below in _subclasses(sub))}


def _unchecked(hint):
    """Return whether a type holds text that nothing checks."""
    if hint is str:
        return True
    return get_origin(hint) not in (Annotated, Literal) and any(map(_unchecked, get_args(hint)))


def test_every_text_of_a_configuration_is_a_name_a_place_or_no_part_of_a_path():
    found = {
        f"{cls.__name__}.{name}"
        for cls in _subclasses(Config)
        if cls.__module__.startswith("nanochat.")
        for name, hint in get_type_hints(cls, include_extras=True).items()
        if name in cls.model_fields and _unchecked(hint) and not cls.model_fields[name].metadata
    }
    assert found == FREE_TEXT
