"""Numbers in words: reading them from speech and saying them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_UNITS = {word: value for value, word in enumerate(_SMALL)}
_TENS_VALUE = {word: value * 10 for value, word in enumerate(_TENS) if word} | {"fourty": 40}
_SCALES = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_LARGEST_SPOKEN = 999_999_999
_DIGITS = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?\Z")
_MAX_DIGITS = 18

SECONDS = {"millisecond": 0.001, "second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3_600, "day": 86_400,
           "week": 604_800}  # fmt: skip
"""Units of time in seconds, by their singular."""


class Number(NamedTuple):
    """A number found at ``words[start:end]``."""

    value: int | float
    start: int
    end: int


def read_number(words: Sequence[str], at: int = 0) -> Number | None:
    """The number that begins at ``words[at]``, taking as many words as belong to it, or None.

    Digits, ``twenty one``, ``one hundred and five``, ``minus three point five``, ``a dozen``, ``half``,
    and digits said one by one (``four two seven`` is 427, as people say codes).
    """
    start = at
    sign = 1
    if at + 1 < len(words) and words[at] in ("minus", "negative"):
        sign, at = -1, at + 1
    found = _digits(words, at) or _digit_run(words, at) or _special(words, at) or _cardinal(words, at)
    if found is None:
        return None
    found = _with_point(words, found)
    return Number(sign * found.value, start, found.end)


def find_numbers(words: Sequence[str]) -> list[Number]:
    """All numbers, left to right, not overlapping."""
    found: list[Number] = []
    at = 0
    while at < len(words):
        number = read_number(words, at)
        # "a" or "an" alone is an article; read_number never takes it without hundred, dozen or half.
        if number is None:
            at += 1
        else:
            found.append(number)
            at = number.end
    return found


def find_duration(words: Sequence[str]) -> Number | None:
    """The first stretch like ``ten minutes and thirty seconds``, in seconds."""
    total, start, end = 0.0, -1, -1
    for number in find_numbers(words):
        unit = words[number.end].rstrip("s") if number.end < len(words) else ""
        if unit not in SECONDS:
            continue
        if start >= 0 and number.start - end > 1:
            break
        start = number.start if start < 0 else start
        total += number.value * SECONDS[unit]
        end = number.end + 1
        if list(words[end : end + 3]) == ["and", "a", "half"]:
            total += SECONDS[unit] / 2
            end += 3
    if start < 0:
        return _loose_duration(words)
    return Number(_tidy(total), start, end)


def say_number(value: int | float) -> str:
    """``21`` is "twenty one", ``3.5`` "three point five"; from a thousand million on, digits."""
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number"
    if value < 0:
        return "minus " + say_number(-value)
    if isinstance(value, float) and not value.is_integer():
        digits = f"{value:.4f}".rstrip("0").rstrip(".")
        whole, _, rest = digits.partition(".")
        spoken = say_number(int(whole))
        return f"{spoken} point {' '.join(_SMALL[int(d)] for d in rest)}" if rest else spoken
    return _say_whole(int(value)) if value <= _LARGEST_SPOKEN else str(int(value))


def _say_whole(value: int) -> str:
    if value < 20:
        return _SMALL[value]
    if value < 100:
        tens, rest = divmod(value, 10)
        return _TENS[tens] + (f" {_SMALL[rest]}" if rest else "")
    if value < 1_000:
        hundreds, rest = divmod(value, 100)
        return f"{_SMALL[hundreds]} hundred" + (f" and {_say_whole(rest)}" if rest else "")
    size, name = (1_000_000, "million") if value >= 1_000_000 else (1_000, "thousand")
    many, rest = divmod(value, size)
    joint = " and " if 0 < rest < 100 else " "
    return f"{_say_whole(many)} {name}" + (f"{joint}{_say_whole(rest)}" if rest else "")


def _tidy(value: int | float) -> int | float:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digits(words: Sequence[str], at: int) -> Number | None:
    if at >= len(words) or len(words[at]) > _MAX_DIGITS or not _DIGITS.match(words[at]):
        return None
    text = words[at].replace(",", "")
    value: int | float = float(text) if "." in text else int(text)
    end = at + 1
    if end < len(words) and words[end] in _SCALES:
        value, end = value * _SCALES[words[end]], end + 1
    return Number(_tidy(value), at, end)


def _digit_run(words: Sequence[str], at: int) -> Number | None:
    end = at
    while end < len(words) and end - at < _MAX_DIGITS and _UNITS.get(words[end], 10) < 10:
        end += 1
    if end - at < 2 or (end < len(words) and words[end] in (*_SCALES, "hundred")):
        return None
    return Number(int("".join(str(_UNITS[word]) for word in words[at:end])), at, end)


def _special(words: Sequence[str], at: int) -> Number | None:
    skip = 1 if at < len(words) and words[at] in ("a", "an") else 0
    word = words[at + skip] if at + skip < len(words) else ""
    if word == "half":
        more = words[at + skip + 1] if at + skip + 1 < len(words) else ""
        return Number(0.5, at, at + skip + (2 if more in ("a", "an") else 1))
    if word == "dozen":
        return Number(12, at, at + skip + 1)
    if word == "couple" and skip:
        return Number(2, at, at + skip + 1)
    return None


def _cardinal(words: Sequence[str], at: int) -> Number | None:
    """Sums tens, hundreds and scales; ``and`` only counts behind a hundred or a scale."""
    total = current = 0
    end, last = at, ""
    if at + 1 < len(words) and words[at] in ("a", "an") and words[at + 1] in (*_SCALES, "hundred"):
        current, end, last = 1, at + 1, "unit"
    while end < len(words):
        for word in words[end].split("-"):
            kind = _kind(word, last)
            if kind == "":
                return Number(total + current, at, end) if end > at and last else None
            if kind == "hundred":
                current = max(current, 1) * 100
            elif kind == "scale":
                total, current = total + max(current, 1) * _SCALES[word], 0
            elif kind != "and":
                current += _UNITS.get(word, 0) + _TENS_VALUE.get(word, 0)
            last = kind
        if last == "and" and (end + 1 >= len(words) or _kind(words[end + 1].split("-")[0], "and") == ""):
            return Number(total + current, at, end)
        end += 1
    return Number(total + current, at, end) if last else None


def _kind(word: str, last: str) -> str:
    """What ``word`` is as a part of a number behind ``last``; "" when it cannot go on there."""
    if word in _UNITS:
        fits = last in ("", "hundred", "scale", "and") or (last == "tens" and 0 < _UNITS[word] < 10)
        return "unit" if fits else ""
    if word in _TENS_VALUE:
        return "tens" if last in ("", "hundred", "scale", "and") else ""
    if word == "hundred":
        return "hundred" if last in ("unit", "tens") else ""
    if word in _SCALES:
        return "scale" if last in ("unit", "tens", "hundred") else ""
    return "and" if word == "and" and last in ("hundred", "scale") else ""


def _with_point(words: Sequence[str], found: Number) -> Number:
    if not isinstance(found.value, int) or found.end >= len(words) or words[found.end] != "point":
        return found
    end = found.end + 1
    digits = ""
    while end < len(words) and len(digits) < _MAX_DIGITS and _UNITS.get(words[end], 10) < 10:
        digits, end = digits + str(_UNITS[words[end]]), end + 1
    return Number(float(f"{found.value}.{digits}"), found.start, end) if digits else found


def _loose_duration(words: Sequence[str]) -> Number | None:
    """``an hour``, ``half an hour``, ``a minute``."""
    for at, word in enumerate(words):
        if word in SECONDS and at > 0 and words[at - 1] in ("a", "an"):
            is_half = at > 1 and words[at - 2] == "half"
            more = 0.5 if list(words[at + 1 : at + 4]) == ["and", "a", "half"] else 0
            value = _tidy(SECONDS[word] * (0.5 if is_half else 1 + more))
            return Number(value, at - (2 if is_half else 1), at + (4 if more else 1))
    return None
