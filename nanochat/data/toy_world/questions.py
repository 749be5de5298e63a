"""Questions about the toy world, of four choices each where they have choices, split by what they ask.

Held out: of kinds of words, words (with their kind); of numbers, sets of four; for `facts`, pairs of a person
and an attribute; for `arithmetic`, pairs of numbers in either order; for `capitals`, countries. No training
question asks for these in any wording, nor has a held-out word among its choices. The facts themselves are in
the documents.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nanochat.data.toy_world.world import (
    CAPITALS,
    KINDS,
    SUBJECTS,
    VALUES,
    Calculation,
    ToyWorld,
    calculations,
    split,
)

CHOICES = 4
LARGEST = 20


@dataclass(frozen=True)
class Item:
    """A question with its answer and all wrong answers to draw from."""

    subject: str
    about: str
    """What is asked for, such as `job of Anna`."""
    answer: str
    wrong: tuple[str, ...]
    content: str
    """What it asks, whatever the wording."""

    @property
    def question(self) -> str:
        """Return the question in words."""
        return f"Which of these is {self.noun}?"

    @property
    def noun(self) -> str:
        """Return what is asked for with its article, where it has one."""
        return f"the {self.about}" if " of " in self.about else self.about


@dataclass(frozen=True)
class Question:
    """A question with four choices, one of them right."""

    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int


def items(world: ToyWorld, subject: str, *, held_out: bool) -> list[Item]:
    """Return the questions of a subject that are held out, or all others."""
    made = sorted(
        {**CHOICE_SUBJECTS, **_OPEN_SUBJECTS}[subject](world), key=lambda item: (item.question, item.answer)
    )
    if subject == "arithmetic":
        allowed = {c.content() for c in calculations(world.seed, held_out=held_out)}
        return [item for item in made if item.content in allowed]
    kept = split(world.seed, made, held_out=held_out, content=lambda item: item.content)
    if held_out or subject not in SUBJECTS:
        return kept
    unseen = {item.answer for item in made} - {item.answer for item in kept}
    return [replace(item, wrong=tuple(w for w in item.wrong if w not in unseen)) for item in kept]


def draw(item: Item, rng: random.Random) -> Question:
    """Draw the choices of a question."""
    choices = [item.answer, *rng.sample(item.wrong, CHOICES - 1)]
    rng.shuffle(choices)
    return Question(item.subject, item.question, tuple(choices), choices.index(item.answer))


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


def _kinds_of(subject: str) -> Callable[[ToyWorld], Iterator[Item]]:
    return lambda _: _kinds(subject)


def _kinds(subject: str) -> Iterator[Item]:
    *others, asked = SUBJECTS[subject]
    wrong = tuple(word for kind in others for word in KINDS[kind])
    for word in KINDS[asked]:
        yield Item(subject, asked, word, wrong, word)


def _facts(world: ToyWorld) -> Iterator[Item]:
    for name, attributes in world.people.items():
        for attribute, value in attributes.items():
            wrong = tuple(v for v in VALUES[attribute] if v != value)
            about = f"{attribute} of {name}"
            yield Item("facts", about, value, wrong, about)


def _arithmetic(_: ToyWorld) -> Iterator[Item]:
    for a in range(1, 10):
        for b in range(1, 10):
            wrong = tuple(str(n) for n in range(2, 19) if n != a + b)
            content = Calculation("+", a, b).content()
            yield Item("arithmetic", f"{a} plus {b}", str(a + b), wrong, content)


def _capitals(_: ToyWorld) -> Iterator[Item]:
    for country, capital in CAPITALS.items():
        wrong = tuple(c for c in CAPITALS.values() if c != capital)
        about = f"capital of {country}"
        yield Item("capitals", about, capital, wrong, about)


def _numbers(_: ToyWorld) -> Iterator[Item]:
    for numbers in itertools.combinations(range(1, LARGEST + 1), CHOICES):
        *wrong, right = map(str, numbers)
        yield Item("numbers", "the largest", right, tuple(wrong), " ".join(map(str, numbers)))


CHOICE_SUBJECTS: Mapping[str, Callable[[ToyWorld], Iterator[Item]]] = {
    **{subject: _kinds_of(subject) for subject in SUBJECTS},
    "numbers": _numbers,
}
_OPEN_SUBJECTS = {"facts": _facts, "arithmetic": _arithmetic, "capitals": _capitals}
