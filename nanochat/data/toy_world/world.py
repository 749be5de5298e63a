"""What there is in the toy world: people with five attributes each, capitals, opposites, kinds of words.

Who has which attribute is drawn from the seed; everything else is fixed. No text is written here except the
sentences that state a fact, so that documents and questions use the same words for it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

HELD_OUT_PART = 5
"""One in this many questions is held out of all training."""

NAMES = (
    *("Anna", "Ben", "Carl", "Dora", "Emma", "Finn", "Gina", "Hugo"),
    *("Ida", "Jack", "Kate", "Leo", "Mia", "Nora", "Otto", "Paul"),
)
CAPITALS: Mapping[str, str] = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Kenya": "Nairobi",
    "Peru": "Lima",
    "Cuba": "Havana",
    "India": "Delhi",
    "Norway": "Oslo",
    "Greece": "Athens",
    "China": "Beijing",
}
VALUES: Mapping[str, tuple[str, ...]] = {
    "job": ("baker", "doctor", "farmer", "teacher", "painter", "sailor", "singer", "pilot"),
    "city": tuple(CAPITALS.values())[:8],
    "colour": ("red", "blue", "green", "yellow", "black", "white", "pink", "brown"),
    "food": ("bread", "soup", "rice", "cheese", "fish", "cake", "pasta", "salad"),
    "pet": ("dog", "cat", "horse", "bird", "rabbit", "mouse", "duck", "goat"),
}
KINDS: Mapping[str, tuple[str, ...]] = {
    "a job": VALUES["job"],
    "a city": VALUES["city"],
    "a colour": VALUES["colour"],
    "a food": VALUES["food"],
    "an animal": (
        *VALUES["pet"],
        *("lion", "tiger", "bear", "wolf", "fox", "sheep", "pig", "cow", "hen", "frog", "deer", "snake"),
    ),
    "a plant": (
        *("rose", "oak", "grass", "tulip", "daisy", "maple", "clover", "willow", "cactus", "lily"),
        *("fern", "moss", "ivy", "birch", "palm", "pine", "reed", "thistle", "poppy", "orchid"),
    ),
    "a tool": ("hammer", "knife", "spoon", "shovel", "ladder", "needle", "brush", "scissors", "rope", "axe"),
    "a body part": ("hand", "foot", "knee", "shoulder", "finger", "mouth", "elbow", "neck", "thumb", "chin"),
    "a season": ("spring", "summer", "autumn", "winter"),
    "a vehicle": ("train", "bicycle", "truck", "wagon", "rocket", "tractor", "ferry", "canoe", "sledge"),
    "an instrument": (
        *("piano", "violin", "trumpet", "guitar", "drum", "flute", "harp", "cello", "organ"),
        *("lute", "banjo", "oboe", "bugle", "gong", "zither", "tuba", "viola", "fiddle", "bagpipe", "horn"),
    ),
    "a garment": ("shirt", "jacket", "glove", "trousers", "scarf", "helmet", "sock", "apron", "skirt"),
    "a room": ("kitchen", "bedroom", "cellar", "attic", "garage", "library", "office", "hallway"),
    "weather": ("thunder", "sunshine", "drizzle", "blizzard", "fog", "hail", "frost", "breeze"),
}
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "people": ("a job", "a city", "a colour", "a food", "an animal"),
    "objects": ("a tool", "a vehicle", "a garment", "an instrument"),
    "surroundings": ("a body part", "a room", "weather", "a plant"),
}
"""The kinds of words of a subject; its questions with choices ask for the last one."""
STATEMENTS: Mapping[str, tuple[str, ...]] = {
    "job": ("The job of {name} is {value}.", "{name} works as a {value}."),
    "city": ("The city of {name} is {value}.", "{name} lives in {value}."),
    "colour": ("The colour of {name} is {value}.", "{name} likes the colour {value}."),
    "food": ("The food of {name} is {value}.", "{name} likes to eat {value}."),
    "pet": ("The pet of {name} is {value}.", "{name} has a {value} at home."),
}
OPPOSITES = (
    *(("big", "small"), ("hot", "cold"), ("old", "new"), ("long", "short"), ("dark", "light")),
    *(("fast", "slow"), ("high", "low"), ("wet", "dry"), ("hard", "soft"), ("full", "empty")),
)
THINGS = ("apples", "books", "coins", "eggs", "cards", "balls", "shells", "stones")


T = TypeVar("T")


@dataclass(frozen=True)
class Calculation:
    """Two numbers to add, subtract or multiply."""

    sign: str
    a: int
    b: int

    @property
    def of_digits(self) -> bool:
        """Whether it is a sum of two digits, which small talk asks for."""
        return self.sign == "+" and self.a < 10

    @property
    def result(self) -> int:
        """Return what it comes to."""
        return {"+": self.a + self.b, "-": self.a - self.b, "*": self.a * self.b}[self.sign]

    def content(self) -> str:
        """Return what is asked, whichever number comes first where that does not matter."""
        a, b = (self.a, self.b) if self.sign == "-" else sorted((self.a, self.b))
        return f"{a}{self.sign}{b}"


@dataclass(frozen=True)
class ToyWorld:
    """The people of one seed: `people[name][attribute]` is the value."""

    seed: int
    people: Mapping[str, Mapping[str, str]]

    @classmethod
    def build(cls, seed: int) -> ToyWorld:
        """Draw who is what; each value belongs to equally many people."""
        rng = random.Random(f"{seed}/people")
        people: dict[str, dict[str, str]] = {name: {} for name in NAMES}
        for attribute, values in VALUES.items():
            shared = list(values) * (len(NAMES) // len(values))
            rng.shuffle(shared)
            for name, value in zip(NAMES, shared, strict=True):
                people[name][attribute] = value
        return cls(seed, people)

    def statement(self, name: str, attribute: str, rng: random.Random) -> str:
        """State one fact, in one of two ways."""
        return rng.choice(STATEMENTS[attribute]).format(name=name, value=self.people[name][attribute])


def split(
    seed: int, items: Iterable[T], *, held_out: bool, content: Callable[[T], object] = lambda item: item
) -> list[T]:
    """Return the items that are held out, or the others, in their order.

    A fixed one in five contents is held out, by hash of seed and content, with every item that has it.
    """
    found = list(items)
    contents = sorted({str(content(item)) for item in found}, key=lambda text: _hashed(f"{seed}/{text}"))
    chosen = set(contents[: max(len(contents) // HELD_OUT_PART, 1)])
    return [item for item in found if (str(content(item)) in chosen) == held_out]


def calculations(seed: int, *, held_out: bool) -> list[Calculation]:
    """Return the calculations that are held out, or the others: from 1 to 20 and 1 to 9.

    Sums of two digits are split by themselves, since there are few of them.
    """
    every = [Calculation(sign, a, b) for sign in "+-*" for a in range(1, 21) for b in range(1, 10)]
    every = [c for c in every if c.sign != "-" or c.a > c.b]
    parts = ([c for c in every if c.of_digits == of_digits] for of_digits in (True, False))
    return [c for part in parts for c in split(seed, part, held_out=held_out, content=Calculation.content)]


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
