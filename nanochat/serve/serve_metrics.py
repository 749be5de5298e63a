"""Numbers of a server for Prometheus, in a registry of its own. Texts are never among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nanochat.serve.job_desk import JobDesk

if TYPE_CHECKING:
    from nanochat.model.kv_cache import KVCache

Outcome = Literal["finished", "timeout", "cancelled", "failed", "refused"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("finished", "timeout", "cancelled", "failed", "refused")
_SECONDS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
_RATES: Final = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)


class ServeMetrics:
    """What a server counts; used on the event loop's thread."""

    def __init__(self, desk: JobDesk) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "nanochat_requests", "Requests for answers, by how they ended", ["outcome"], registry=registry
        )
        for outcome in OUTCOMES:
            self._requests.labels(
                outcome
            )  # so that each is there from the beginning: a first one is a growth
        self._prompt_tokens = Counter(
            "nanochat_prompt_tokens", "Tokens of prompts: read, or known before", ["how"], registry=registry
        )
        for how in ("read", "reused"):
            self._prompt_tokens.labels(how)
        self._tokens = Counter("nanochat_generated_tokens", "Tokens written", registry=registry)
        self._first = _histogram("time_to_first_token_seconds", "From a request to a first token", registry)
        self._duration = _histogram("request_duration_seconds", "From a request to its end", registry)
        self._rate = _histogram("answer_tokens_per_second", "Speed of one answer", registry, _RATES)
        _gauge("waiting_answers", "Answers that wait for a place", registry, lambda: desk.waiting)
        _gauge("running_answers", "Answers being written", registry, lambda: sum(desk.loads.values()))
        _gauge("engines", "Engines that write answers", registry, lambda: len(desk.loads))
        _gauge("places", "Answers that fit at once", registry, lambda: len(desk.loads) * desk.rows)

    def watch_caches(self, caches: Callable[[], Sequence[KVCache]]) -> None:
        """Show how much the engines keep of texts."""
        registry = self.registry
        _gauge(
            "cache_tokens",
            "Tokens of texts that are kept",
            registry,
            lambda: sum(len(text) for cache in caches() for text in cache.texts),
        )
        _gauge(
            "cache_bytes",
            "Memory in which they are kept",
            registry,
            lambda: sum(cache.memory_bytes for cache in caches()),
        )

    def ended(self, outcome: Outcome, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(outcome).inc()
        if outcome != "refused":
            self._duration.observe(seconds)

    def first_token(self, seconds: float) -> None:
        """Count the first token of an answer."""
        self._first.observe(seconds)

    def prompt(self, tokens: int, reused: int) -> None:
        """Count a prompt that was read, or known in part."""
        self._prompt_tokens.labels("read").inc(tokens - reused)
        self._prompt_tokens.labels("reused").inc(reused)

    def tokens(self, count: int) -> None:
        """Count tokens that were written."""
        self._tokens.inc(count)

    def answer(self, tokens: int, seconds: float) -> None:
        """Count an answer that has ended, which took this long after its first token."""
        if tokens > 1 and seconds > 0:
            self._rate.observe((tokens - 1) / seconds)

    def text(self) -> bytes:
        """Return all numbers as Prometheus reads them."""
        return generate_latest(self.registry)


def _histogram(
    name: str, what: str, registry: CollectorRegistry, buckets: Sequence[float] = _SECONDS
) -> Histogram:
    return Histogram(f"nanochat_{name}", what, buckets=buckets, registry=registry)


def _gauge(name: str, what: str, registry: CollectorRegistry, value: Callable[[], float]) -> None:
    Gauge(f"nanochat_{name}", what, registry=registry).set_function(value)
