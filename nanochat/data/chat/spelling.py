"""The spelling tasks: a word letter by letter, and how often a letter occurs in a word.

Tokens hide their letters, so a small model must be shown them. Rows are not kept anywhere: each is made
from a word list and its seed, the number of the row (test rows have seeds of their own, beyond all others).

As upstream has had them since October 2025: how many rows there are, the seeds, which word and which letter a
seed draws from a list, that the letters have no spaces (" a" is another token than "a"), that what was
counted by hand is checked with the calculator's `.count`, and the last line `#### n`. The sentences are this
project's, so the tokens of a row are not upstream's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING

from nanochat.data.chat.task_table import TASKS
from nanochat.errors import DataError

if TYPE_CHECKING:  # at run time the planner would pay for loading the tokenizer
    from nanochat.tokenizer.chat_format import Conversation, Part

_FIRST_TEST_SEED = 10_000_000
_ORDER_SEED = 42  # of the words that are spelled, so that both tasks draw other words with one seed
_WORD = re.compile(r"[^\W\d_]{1,64}")  # the calculator takes no more than 200 characters

_LETTER_OF_THE_WORD = 0.9
_CARELESS = 0.3  # how many write without capitals
_ASKING = 0.5  # how many end with a question mark
_QUOTES = ("", "'", '"')
_QUESTIONS = (
    "How often does {letter} occur in {word}",
    "How often is the letter {letter} used in {word}",
    "How many times do I have to write {letter} to spell {word}",
    "How many of the letters of {word} are {letter}",
    "How many {letter} can you find in {word}",
    "Can you tell me how many {letter} there are in {word}",
    "Do you know how many times {word} has the letter {letter}",
    "I wonder how many {letter} the word {word} has",
    "If I spell {word}, how many {letter} will I need",
    "Look at the word {word}: how many letters are {letter}",
    "Please count every {letter} in {word}",
    "Please find out how frequent {letter} is in the word {word}",
    "Count {letter} in the word {word}",
    "Go through {word} and count each {letter}",
    "Occurrences of {letter} in {word}",
    "The word is {word}, the letter is {letter}. What is the count",
    "Take the word {word}. The letter {letter} is in it how many times",
    "What number of {letter} does {word} include",
    "Wie viele Buchstaben {letter} stecken in {word}",
    "Wie häufig steht {letter} im Wort {word}",
    "Combien de lettres {letter} y a-t-il dans le mot {word}",
    "Quel est le nombre de {letter} dans le mot {word}",
    "Cuántas letras {letter} encuentras en la palabra {word}",
    "Dime cuántas veces está {letter} en la palabra {word}",
    "Quante volte compare {letter} nella parola {word}",
    "Quantas letras {letter} tem a palavra {word}",
    "单词{word}包含多少个字母{letter}",
    "请数出{word}里字母{letter}的个数",
    "単語{word}には文字{letter}がいくつ含まれますか",
    "단어 {word}에는 글자 {letter}가 몇 번 들어 있나요",
)


def seeds(task: str, split: str) -> range:
    """Return the seeds of a task's rows."""
    first = _FIRST_TEST_SEED if split == "test" else 0
    return range(first, first + TASKS[task].splits[split].rows)


def read_words(path: Path, address: str | None = None) -> list[str]:
    """Read a list of one word per line; raise DataError if it is not one, or if a word has not only letters.

    The error names the address that the file came from, where there is one.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = f"{path.name} has one word per line; a hub source takes it from tasks.words_url"
        raise DataError(f"{path}: not a readable word list: {error}", hint=hint) from error
    words = [line.strip() for line in lines]
    wrong = next((i for i, word in enumerate(words) if not _WORD.fullmatch(word)), None)
    if wrong is not None or not words:
        found = "no words" if wrong is None else f"line {wrong + 1} is {words[wrong][:64]!r}"
        hint = "one word per line, of 1 to 64 letters; is tasks.words_url or tasks.source right?"
        raise DataError(f"{address or path}: not a list of words: {found}", hint=hint)
    return words


def reordered(words: Sequence[str]) -> list[str]:
    """Return the words in the order that `spelling` draws from."""
    shuffled = list(words)
    random.Random(_ORDER_SEED).shuffle(shuffled)
    return shuffled


def spelling(words: Sequence[str], seed: int) -> Conversation:
    """Return a row of `spelling`: a word and its letters. `words`: as `reordered` has them."""
    word = random.Random(seed).choice(words)
    return [
        {"role": "user", "content": f"Spell {word} letter by letter."},
        {"role": "assistant", "content": _spelled(word)},
    ]


def spelling_bee(words: Sequence[str], seed: int) -> Conversation:
    """Return a row of `spelling_bee`: a letter of a word counted by hand, then by the calculator."""
    rng = random.Random(seed)
    word, letter = _draw(rng, words)
    question = _question(rng, word, letter)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": _counted(word, letter)}]


def occurrences(words: Sequence[str], seed: int) -> int:
    """Return the right answer to a row of `spelling_bee`."""
    word, letter = _draw(random.Random(seed), words)
    return word.count(letter)


def _draw(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    word = rng.choice(words)
    return word, rng.choice(word if rng.random() < _LETTER_OF_THE_WORD else ascii_lowercase)


def _question(rng: random.Random, word: str, letter: str) -> str:
    question = rng.choice(_QUESTIONS)
    if rng.random() < _CARELESS:
        question = question.lower()
    around_letter, around_word = rng.choice(_QUOTES), rng.choice(_QUOTES)
    asked = question.format(
        letter=f"{around_letter}{letter}{around_letter}", word=f"{around_word}{word}{around_word}"
    )
    return f"{asked}?" if rng.random() < _ASKING else asked


def _counted(word: str, letter: str) -> list[Part]:
    count, lines = 0, []
    for place, found in enumerate(word, 1):
        count += found == letter
        lines.append(f"{place}:{found} -> {count}\n" if found == letter else f"{place}:{found}\n")
    by_hand = (
        f"I spell '{word}' and count '{letter}' on the way.\n\n{_spelled(word)}\n\n{''.join(lines)}\n"
        f"By hand that makes {count}. Python can check it:\n\n"
    )
    return [
        {"type": "text", "text": by_hand},
        {"type": "python", "text": f"'{word}'.count('{letter}')"},
        {"type": "python_output", "text": str(word.count(letter))},
        {"type": "text", "text": f"\n\nIt is the same number.\n\n#### {count}"},
    ]


def _spelled(word: str) -> str:
    return f"{word}:{','.join(word)}"
