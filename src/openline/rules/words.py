"""Words as a recognizer writes them: no case, no punctuation, sometimes a letter off."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_TEXT = 2_000
"""Characters of one turn that are looked at: two minutes of fast speech; bounds the matching time."""

_WORD = re.compile(
    r"https?://[^\s\"]+[\w/]"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|\d{4}-\d\d-\d\d(?:[Tt]\d\d:\d\d(?::\d\d)?(?:[Zz]|[+-]\d\d:\d\d)?)?|\d{1,2}:\d\d(?::\d\d)?"
    r"|-?\d+(?:,\d{3})+(?:\.\d+)?(?!\w)|-?\d+(?:\.\d+)?(?![\w-])"
    r"|\w+(?:['._-]+\w+)*"
)
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"'})
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\W]+")


class Word(NamedTuple):
    """``raw`` as written, ``low`` in lower case, ``start``/``end`` its place in the text."""

    raw: str
    low: str
    start: int
    end: int


def straight(text: str) -> str:
    """``text`` with typographic quotes made plain (same length) and cut to MAX_TEXT."""
    return text[:MAX_TEXT].translate(_QUOTES)


def words_of(text: str) -> list[Word]:
    return [Word(m.group(), m.group().lower(), m.start(), m.end()) for m in _WORD.finditer(text)]


def plain(text: str, contractions: dict[str, str]) -> list[str]:
    """Lower-case words of ``text`` with contractions written out: what all matching is done on."""
    found: list[str] = []
    for word in words_of(straight(text)):
        expanded = contractions.get(word.low, word.low)
        found.extend(expanded.replace("'", "").split())
    return found


def name_words(name: str) -> list[str]:
    """``getStockLevel`` and ``get_stock-level`` both give get, stock, level."""
    return [part.lower() for part in _CAMEL.split(name) if part]


def stem(word: str) -> str:
    """A tiny English stemmer: plural, -ing, -ed and final e are dropped. Wrong now and then, never slow."""
    if word.endswith("'s"):
        word = word[:-2]
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 4 and word.endswith(("ses", "xes", "zes", "ches", "shes")):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending, shortest in (("ing", 6), ("ed", 6)):
        if word.endswith(ending) and len(word) >= shortest:
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    # Four letters keep their e: "note" must not become "not".
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


def is_near(one: str, other: str) -> bool:
    """Equal, or one letter off in words of five letters and more."""
    if one == other:
        return True
    if min(len(one), len(other)) < 5 or abs(len(one) - len(other)) > 1:
        return False
    return _one_edit(one, other) if len(one) >= len(other) else _one_edit(other, one)


def _one_edit(long: str, short: str) -> bool:
    at = next((i for i, (a, b) in enumerate(zip(long, short, strict=False)) if a != b), len(short))
    if len(long) == len(short):
        return long[at + 1 :] == short[at + 1 :]
    return long[at + 1 :] == short[at:]


def find_run(words: Sequence[str], wanted: Sequence[str], start: int = 0) -> int:
    """Where ``wanted`` stands in ``words`` as a run, letters a little off allowed; -1 if nowhere."""
    if not wanted:
        return -1
    for at in range(start, len(words) - len(wanted) + 1):
        if all(is_near(words[at + i], word) for i, word in enumerate(wanted)):
            return at
    return -1


def say_list(parts: Iterable[str], joint: str = "and") -> str:
    """``a, b and c``."""
    known = [part for part in parts if part]
    if len(known) < 2:
        return "".join(known)
    return f"{', '.join(known[:-1])} {joint} {known[-1]}"


def sentence(text: str) -> str:
    """``text`` with a capital at its start and a mark at its end; "" stays ""."""
    text = " ".join(text.split())
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
