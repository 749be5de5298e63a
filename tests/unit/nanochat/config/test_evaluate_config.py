from __future__ import annotations

import pytest

from nanochat.config import EvaluateConfig
from nanochat.errors import ConfigError
from nanochat.recipes import find


def test_samples_that_would_all_be_alike_are_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"num_samples is 4 at temperature 0.*such as 0\.8"):
        find("toy", ["evaluate.num_samples=4"])
    assert find("toy", ["evaluate.num_samples=4", "evaluate.temperature=0.8"]).evaluate.num_samples == 4
    assert EvaluateConfig(temperature=0.7).num_samples == 1
