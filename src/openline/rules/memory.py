"""What the caller told the agent, read from the conversation's items each time it is asked for.

Nothing is kept here: the items are the memory, so it survives whatever they survive. Recognizers drop
punctuation and mishear small words, so keys are compared loosely and "is" may have come as "his" or "as".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

from openline.rules.match import RuleBook, strip_phrases
from openline.rules.words import find_run, stem, straight, words_of

_MAX_KEY = 5
"""Words of a key ("the code word of my house"): longer ones are stories, not facts."""
_MAX_VALUE = 30
_MAX_NAME = 4
_ALIKE = 0.7
"""Likeness of two keys (difflib ratio) from which they are the same.

"code where" for "code word" has 0.74; "dogs name" and "name", which are two things, 0.62.
"""
_IS = ("is", "are", "was", "were", "equals")
_ASKING = frozenset(
    "what who where when which how do does did can could tell repeat remind know say whats is are".split()
)
_FLIP = {
    "i": "you", "my": "your", "me": "you", "am": "are", "mine": "yours", "myself": "yourself", "we": "you", "our": "your",
}  # fmt: skip
_PRONOUNS = ("it", "that", "this", "what")
_NOT_NAMES = frozenset("back later tomorrow again when if a an the at on in up for".split())


class Said(NamedTuple):
    """A word for matching, and as it was written."""

    low: str
    raw: str


@dataclass(frozen=True, slots=True)
class Fact:
    """``subject`` as the agent says it ("your code word"); "" for a remembered sentence."""

    key: tuple[str, ...]
    subject: str
    verb: str
    value: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for; an empty ``key`` asks for everything. ``subject`` as the agent would say it."""

    key: tuple[str, ...]
    subject: str


def said_words(book: RuleBook, text: str) -> list[Said]:
    found: list[Said] = []
    for word in words_of(straight(text)):
        expanded = book.data.contractions.get(word.low)
        if expanded is None:
            found.append(Said(word.low.replace("'", ""), word.raw))
        else:
            found.extend(Said(part, part) for part in expanded.split())
    return found


def told(book: RuleBook, text: str) -> Fact | None:
    """The fact that a turn states, or None."""
    if book.fact_hint.search(text) is None:  # most turns: a long call is read at every question
        return None
    words = _trimmed(book, said_words(book, text))
    lows = [word.low for word in words]
    is_request = False
    for phrase in book.remember_phrases:
        if lows[: len(phrase)] == phrase:
            skip = len(phrase)
            skip += 1 if lows[skip : skip + 1] in (["that"], ["this"]) else 0
            words, lows, is_request = words[skip:], lows[skip:], True
            break
    if not words or (lows[0] in _ASKING and not is_request):
        return None
    found = _name(words, lows) or _mine(book, words, lows) or _known_key(book, words, lows)
    if found is None and is_request:
        found = _the(words, lows) or Fact((), "", "", _flipped(words))
    return found


def facts(book: RuleBook, texts: Iterable[str]) -> list[Fact]:
    """All facts of a conversation, oldest first; what was told again replaces what was told before."""
    known: dict[tuple[str, ...], Fact] = {}
    for text in texts:
        fact = told(book, text)
        if fact is not None:
            key = fact.key or ("", fact.value)
            known.pop(key, None)
            known[key] = fact
    return list(known.values())


def asked(book: RuleBook, text: str) -> Question | None:
    """What a turn asks to be reminded of, or None if it is no such question."""
    lows = [word.low for word in _trimmed(book, said_words(book, text))]
    everything = (
        "what do you remember", "what did i tell you", "what do you know about me", "what did i ask you to remember",
        "what have i told you", "what should you remember", "what did i say you should remember",
    )  # fmt: skip
    joined = " ".join(lows)
    if any(joined.startswith(phrase) for phrase in everything):
        return Question((), "")
    if joined in ("who am i", "what am i called", "who i am", "do you remember me", "what do you call me"):
        return Question(("name",), "your name")
    if not lows or not (set(lows[:4]) & (_ASKING | {"remember", "recall", "my"})):
        return None
    for at, low in enumerate(lows):
        if low in book.data.memory.my:
            key = _until_stop(lows[at + 1 :])
            return Question(key, "your " + " ".join(key)) if key else None
    if lows[:2] in (["what", "is"], ["what", "was"], ["where", "is"], ["when", "is"], ["who", "is"]):
        key = _until_stop([low for low in lows[2:] if low not in ("the", "a", "an")])
        return Question(key, "the " + " ".join(key)) if key else None
    return None


def may_recall(book: RuleBook, text: str) -> bool:
    """False if ``recall`` would find nothing whatever is known: then nothing needs to be read."""
    lows = [word.low for word in _trimmed(book, said_words(book, text))]
    return bool(set(lows[:5]) & (_ASKING | {"remember", "recall", "my"}))


def recall(book: RuleBook, text: str, known: Sequence[Fact]) -> Fact | None:
    """The fact that a turn asks for, the newest first, even if the question is a little misheard."""
    if not may_recall(book, text):
        return None
    lows = [word.low for word in _trimmed(book, said_words(book, text))]
    question = asked(book, text)
    keyed = [fact for fact in reversed(known) if fact.key]
    if question is not None and question.key:
        wanted = question.key
        best = max(keyed, key=lambda fact: _alike(fact.key, wanted), default=None)
        return best if best is not None and _alike(best.key, wanted) >= _ALIKE else None
    best = max(keyed, key=lambda fact: _likeness(fact.key, lows), default=None)
    return best if best is not None and _likeness(best.key, lows) >= _ALIKE else None


def _alike(one: Sequence[str], other: Sequence[str]) -> float:
    """Likeness of two keys, 0..1; plural and singular are the same."""
    if [stem(part) for part in one] == [stem(part) for part in other]:
        return 1.0
    if min(len(" ".join(one)), len(" ".join(other))) < 5:
        return 0.0  # short keys ("age") are like too many words
    return SequenceMatcher(None, " ".join(one), " ".join(other)).ratio()


def _likeness(key: Sequence[str], lows: Sequence[str]) -> float:
    """How well ``key`` stands somewhere in ``lows``, 0..1."""
    stems = [stem(low) for low in lows]
    if find_run(stems, [stem(part) for part in key]) >= 0:
        return 1.0
    wanted = " ".join(key)
    if len(wanted) < 5:  # short keys ("age") are like too many words
        return 0.0
    size = len(key)
    windows = (" ".join(lows[at : at + size]) for at in range(max(1, len(lows) - size + 1)))
    return max(SequenceMatcher(None, wanted, window).ratio() for window in windows)


def _trimmed(book: RuleBook, words: list[Said]) -> list[Said]:
    """Without what is said before and behind out of politeness; never without everything."""
    lows = [word.low for word in words]
    front = strip_phrases(lows, book.polite_before, is_front=True)
    words = words[len(words) - len(front) :] if front else words
    lows = [word.low for word in words]
    back = strip_phrases(lows, book.memory_tail, is_front=False)
    return words[: len(back)] if back else words


def _name(words: list[Said], lows: list[str]) -> Fact | None:
    for lead in (
        ["my", "name", "is"],
        ["i", "am", "called"],
        ["call", "me"],
        ["they", "call", "me"],
        ["my", "names"],
    ):
        value = words[len(lead) :]
        if lows[: len(lead)] == lead and 0 < len(value) <= _MAX_NAME and value[0].low not in _NOT_NAMES:
            return Fact(("name",), "your name", "is", " ".join(word.raw for word in value))
    return None


def _mine(book: RuleBook, words: list[Said], lows: list[str]) -> Fact | None:
    """``my KEY is VALUE``."""
    if lows[0] not in book.data.memory.my:
        return None
    at = next((i for i, low in enumerate(lows[: _MAX_KEY + 2]) if low in _IS and i > 1), -1)
    fact = _fact("your", words, lows, 1, at)
    if fact is None or fact.value in _PRONOUNS:
        return None
    for key in book.data.memory.keys:
        if _alike(fact.key, key.split()) >= _ALIKE:
            return Fact(tuple(key.split()), f"your {key}", fact.verb, fact.value)
    return fact


def _the(words: list[Said], lows: list[str]) -> Fact | None:
    """``the KEY is VALUE``, only behind "remember that"."""
    start = 1 if lows[0] in ("the", "a", "an") else 0
    if lows[0] in _FLIP:
        return None
    at = next((i for i, low in enumerate(lows[: _MAX_KEY + 2]) if low in _IS and i > start), -1)
    return _fact("the" if start else "", words, lows, start, at)


def _fact(owner: str, words: list[Said], lows: list[str], start: int, at: int) -> Fact | None:
    value = words[at + 1 :][:_MAX_VALUE]
    if at < 0 or not value:
        return None
    subject = " ".join([owner, *(word.raw for word in words[start:at])]).strip()
    return Fact(tuple(lows[start:at]), subject, "are" if lows[at] == "are" else "is", _flipped(value))


def _known_key(book: RuleBook, words: list[Said], lows: list[str]) -> Fact | None:
    """A key of the data file with its value behind it, whatever was heard for "my" and "is"."""
    if _ASKING & set(lows) - set(_IS):
        return None
    stems = [stem(low) for low in lows]
    for key in book.data.memory.keys:
        parts = key.split()
        at, size = find_run(stems, [stem(part) for part in parts]), len(parts)
        if at < 0 and len(parts) > 1:
            at, size = find_run(lows, ["".join(parts)]), 1
        if at < 0:
            continue
        start = at + size
        while start < len(lows) and (
            lows[start] in book.data.memory.is_ or lows[start] in ("where", "it", "it's")
        ):
            start += 1
        value = words[start:][:_MAX_VALUE]
        if value:
            return Fact(tuple(parts), f"your {key}", "is", " ".join(word.raw for word in value))
    return None


def _flipped(words: Sequence[Said]) -> str:
    """As the agent says it back: "i like my tea" is "you like your tea"."""
    return " ".join(_FLIP.get(word.low, word.raw) for word in words)


def _until_stop(lows: Sequence[str]) -> tuple[str, ...]:
    key: list[str] = []
    for low in lows[:_MAX_KEY]:
        if low in (*_IS, "i", "that", "again", "please", "you", "for", "now", "in", "on", "at", "to", "did"):
            break
        key.append(low)
    return tuple(key)
