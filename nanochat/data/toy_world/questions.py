"""Multiple choice questions about the toy world, four choices each, split by question text.

Held out: for `category` and `facts`, pairs of a person with a kind or attribute; for `arithmetic`, pairs
of numbers; for `capitals` and `opposites`, countries and words. The facts themselves are in the documents.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nanochat.data.toy_world.world import CAPITALS, KINDS, OPPOSITES, VALUES, ToyWorld, split

CHOICES = 4


@dataclass(frozen=True)
class Item:
    """A question with all right and all wrong answers to draw from."""

    subject: str
    question: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A question with four choices, one of them right."""

    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int


def items(world: ToyWorld, subject: str, *, held_out: bool) -> list[Item]:
    """Return the questions of a subject that are held out, or all others."""
    made = sorted(SUBJECTS[subject](world), key=lambda item: item.question)
    return split(world.seed, made, held_out=held_out)


def draw(item: Item, rng: random.Random) -> Question:
    """Draw the choices of a question."""
    right = rng.choice(item.right)
    choices = [right, *rng.sample(item.wrong, CHOICES - 1)]
    rng.shuffle(choices)
    return Question(item.subject, item.question, tuple(choices), choices.index(right))


def questions(
    world: ToyWorld, subjects: Sequence[str], rows: int, rng: random.Random, *, held_out: bool
) -> list[Question]:
    """Draw up to `rows` different questions, subjects in turn."""
    pools = [items(world, subject, held_out=held_out) for subject in subjects]
    drawn: dict[Question, None] = {}
    for attempt in range(20 * rows):
        drawn.setdefault(draw(rng.choice(pools[attempt % len(pools)]), rng))
        if len(drawn) == rows:
            break
    return list(drawn)


def _categories(world: ToyWorld) -> Iterator[Item]:
    kinds = {kind: words for kind, words in KINDS.items() if words in VALUES.values()}
    for name in world.people:
        for kind, right in kinds.items():
            wrong = tuple(word for words in kinds.values() if words != right for word in words)
            yield Item("category", f"{name} asks which of these is {kind}.", right, wrong)


def _facts(world: ToyWorld) -> Iterator[Item]:
    for name, attributes in world.people.items():
        for attribute, value in attributes.items():
            wrong = tuple(v for v in VALUES[attribute] if v != value)
            yield Item("facts", f"What is the {attribute} of {name}?", (value,), wrong)


def _arithmetic(_: ToyWorld) -> Iterator[Item]:
    for a in range(1, 10):
        for b in range(1, 10):
            wrong = tuple(str(n) for n in range(2, 19) if n != a + b)
            yield Item("arithmetic", f"What is {a} plus {b}?", (str(a + b),), wrong)


def _capitals(_: ToyWorld) -> Iterator[Item]:
    for country, capital in CAPITALS.items():
        wrong = tuple(c for c in CAPITALS.values() if c != capital)
        yield Item("capitals", f"What is the capital of {country}?", (capital,), wrong)


def _opposites(_: ToyWorld) -> Iterator[Item]:
    words = [word for pair in OPPOSITES for word in pair]
    for pair in OPPOSITES:
        for word, other in (pair, pair[::-1]):
            wrong = tuple(w for w in words if w not in pair)
            yield Item("opposites", f"What is the opposite of {word}?", (other,), wrong)


SUBJECTS = {
    "category": _categories,
    "facts": _facts,
    "arithmetic": _arithmetic,
    "capitals": _capitals,
    "opposites": _opposites,
}
