"""What a server says of itself: models, health, and numbers for Prometheus."""

from __future__ import annotations

import re

ASKED = {"messages": [{"role": "user", "content": "What is 3 plus 4?"}]}


def test_the_model_is_listed_with_its_context(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("tiny", "model", 1024)
    assert client.get("/v1/models/tiny").json() == model
    missing = client.get("/v1/models/other/name")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_health_counts_engines_as_upstream_does(client):
    assert client.get("/health").json() == {
        "status": "ok",
        "ready": True,
        "num_gpus": 1,
        "available_workers": 1,
    }


def test_numbers_for_prometheus_follow_what_was_answered(client):
    def numbers():
        found = client.get("/metrics")
        assert found.headers["content-type"].startswith("text/plain; version=")
        return {
            name: float(value)
            for name, value in re.findall(r"^(nanochat_[^ ]+) ([^ \n]+)$", found.text, flags=re.MULTILINE)
        }

    before = numbers()
    usage = client.post("/v1/chat/completions", json=ASKED).json()["usage"]
    again = client.post("/v1/chat/completions", json=ASKED).json()["usage"]
    after = numbers()

    def grown(name):
        return after[f"nanochat_{name}"] - before[f"nanochat_{name}"]

    assert grown('requests_total{outcome="finished"}') == 2
    assert grown("generated_tokens_total") == usage["completion_tokens"] + again["completion_tokens"]
    reused = sum(each["prompt_tokens_details"]["cached_tokens"] for each in (usage, again))
    assert reused > 0 and grown('prompt_tokens_total{how="reused"}') == reused
    assert grown('prompt_tokens_total{how="read"}') == 2 * usage["prompt_tokens"] - reused
    for histogram in ("time_to_first_token_seconds", "request_duration_seconds", "answer_tokens_per_second"):
        assert grown(f"{histogram}_count") == 2
    assert after["nanochat_places"] == 8 and after["nanochat_engines"] == 1
    assert after["nanochat_cache_tokens"] > 0 and after["nanochat_cache_bytes"] > 0
    assert (after["nanochat_running_answers"], after["nanochat_waiting_answers"]) == (0, 0)


def test_the_description_of_the_api_can_be_read(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/chat/completions"} <= set(paths)
