"""Laws of keys: everything that is produced by is in them, where and how fast it is produced is not."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import dag
from flows.plan.key import payload_of
from flows.stages import STAGES
from flows.store.fingerprint import fingerprint
from nanochat import recipes
from nanochat.config import Config, Recipe
from nanochat.runtime import Runtime

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _one_node_a_stage(recipe):
    return {node.stage.name: node for node in reversed(dag.build(recipe))}


NODES = _one_node_a_stage(recipes.find("toy"))
STAGE_NAMES = st.sampled_from(sorted(NODES))


def key_of(node, digests=None):
    known = digests or {i: fingerprint(i) for i in dag.input_ids(node)}
    return fingerprint(payload_of(node, known))


def paths(config, prefix=()):
    """Yield the path of every field, down into nested configurations and the first members of tuples."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        yield (*prefix, name)
        if isinstance(value, Config):
            yield from paths(value, (*prefix, name))
        elif isinstance(value, tuple):
            for i, item in enumerate(value[:2]):
                if isinstance(item, Config):
                    yield from paths(item, (*prefix, name, i))


def value_at(config, path):
    for part in path:
        config = config[part] if isinstance(part, int) else getattr(config, part)
    return config


def with_value(config, path, value):
    """Return a copy with one value changed, unchecked: the laws hold for values without sense, too."""
    if not path:
        return value
    head, *rest = path
    if isinstance(head, int):
        return (*config[:head], with_value(config[head], rest, value), *config[head + 1 :])
    return config.model_copy(update={head: with_value(getattr(config, head), rest, value)})


def other_values(value):
    """Return a strategy for values of the same kind that are not this one."""
    if isinstance(value, bool):
        return st.just(not value)
    if isinstance(value, int):
        return st.integers(-(2**63), 2**63).filter(lambda other: other != value)
    if isinstance(value, float):
        return st.floats(allow_nan=False, allow_infinity=False).filter(lambda other: other != value)
    if isinstance(value, str):
        return _TEXT.filter(lambda other: other != value)
    if isinstance(value, tuple):
        return st.sampled_from([(*value, *value[:1]), value[:-1]] if value else [("one more",)])
    return _TEXT if value is None else st.none()


def is_location(node, path):
    return path[0] in node.config.location_fields


def test_every_stage_has_a_node_and_each_of_its_fields_is_walked():
    assert set(NODES) == set(STAGES)
    walked = Counter(path[0] for node in NODES.values() for path in paths(node.config))
    declared = {name for node in NODES.values() for name in type(node.config).model_fields}
    assert set(walked) == declared


@pytest.mark.parametrize("stage", sorted(NODES))
def test_each_field_of_a_stage_changes_its_key(stage):
    node = NODES[stage]
    for path in paths(node.config):
        if not is_location(node, path):
            check_field(node, path)


def check_field(node, path):
    old = value_at(node.config, path)

    @settings(max_examples=4)
    @given(other_values(old))
    def differs(value):
        changed = replace(node, config=with_value(node.config, path, value))
        assert key_of(changed) != key_of(node), f"{path} is not in the key of {node.stage.name}"

    differs()


@given(STAGE_NAMES, _TEXT, st.data())
def test_where_bytes_lie_is_in_no_key(stage, text, data):
    node = NODES[stage]
    if not node.config.location_fields:
        return
    name = data.draw(st.sampled_from(sorted(node.config.location_fields)))
    changed = replace(node, config=node.config.model_copy(update={name: text}))
    assert key_of(changed) == key_of(node)


def test_some_stages_do_have_locations():
    assert {s for s, node in NODES.items() if node.config.location_fields} == {"download", "tasks"}


@given(STAGE_NAMES)
def test_how_and_where_a_stage_runs_is_in_no_key(stage):
    node = NODES[stage]
    payload = payload_of(node, {i: fingerprint(i) for i in dag.input_ids(node)})
    assert set(payload) == {"stage", "version", "config", "inputs"}
    runtime = {field.name for field in dataclasses.fields(Runtime)}
    assert runtime.isdisjoint(part for path in paths(node.config) for part in path)


@given(STAGE_NAMES, st.data())
def test_each_input_and_their_order_is_in_the_key(stage, data):
    node = NODES[stage]
    ids = dag.input_ids(node)
    if not ids:
        return
    digests = {i: fingerprint(i) for i in ids}
    one = data.draw(st.sampled_from(ids))
    assert key_of(node, {**digests, one: fingerprint("other bytes")}) != key_of(node, digests)
    for name, value in node.inputs.items():
        if isinstance(value, tuple) and len(value) > 1:
            turned = replace(node, inputs={**node.inputs, name: value[::-1]})
            assert key_of(turned, digests) != key_of(node, digests)


@given(STAGE_NAMES, st.integers(1, 99))
def test_a_raised_version_is_another_key(stage, by):
    node = NODES[stage]
    raised = replace(node, stage=replace(node.stage, version=node.stage.version + by))
    assert key_of(raised) != key_of(node)


@settings(max_examples=10)
@given(_TEXT.filter(bool), st.integers(1, 99))
def test_the_name_of_a_recipe_and_its_dial_are_in_no_key(name, depth):
    """A recipe's name is how people call it: what it makes is decided by the stages' own fields."""
    renamed = recipes.find("toy").model_copy(update={"name": name, "depth": depth})
    assert isinstance(renamed, Recipe)
    assert {s: key_of(n) for s, n in _one_node_a_stage(renamed).items()} == {
        s: key_of(n) for s, n in NODES.items()
    }
