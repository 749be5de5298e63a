"""The page and its files, and that they may use nothing from elsewhere."""

from __future__ import annotations

import pytest

from nanochat.errors import ConfigError
from nanochat.serve.web_page import read_page

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def test_the_page_is_served_with_a_strict_policy(client):
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    again = client.get("/page/index.html", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/", "/page/index.html", "/health"])
def test_whether_a_page_is_there_can_be_asked_without_its_content(client, path):
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("name", ["none.js", "..%2f__init__.py", "%2e%2e/__init__.py", "../web_page.py"])
def test_no_other_file_is_served(client, name):
    assert client.get(f"/page/{name}").status_code == 404


def test_a_missing_page_is_an_error_before_anything_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match=r"index\.html is missing"):
        read_page(tmp_path)
