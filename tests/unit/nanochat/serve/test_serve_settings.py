"""A server that others could use has a key, which is not easily guessed and is never shown."""

from __future__ import annotations

import pytest

from nanochat.errors import ConfigError
from nanochat.serve.serve_settings import ServeSettings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", ""])
def test_an_address_that_others_reach_needs_a_key(host):
    with pytest.raises(ConfigError, match="no key") as error:
        ServeSettings(host=host)
    assert "NANOCHAT_API_KEY" in error.value.hint
    assert ServeSettings(host=host, key="a-long-secret-key").key == "a-long-secret-key"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_alone_needs_none(host):
    assert ServeSettings(host=host).key is None


@pytest.mark.parametrize("key", ["short", "", "with space inside", "ключ-ключ-ключ", "new\nline-new-line"])
def test_a_key_that_is_short_or_cannot_be_sent_is_refused_without_being_shown(key):
    with pytest.raises(ConfigError) as error:
        ServeSettings(key=key)
    assert not key or key not in str(error.value)


def test_a_key_is_not_part_of_what_settings_look_like():
    assert "a-long-secret-key" not in repr(ServeSettings(key="a-long-secret-key"))
