"""Numbers in words, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.rules.numbers import find_duration, find_numbers, read_number, say_number


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("twenty one bolts", [21]),
        ("one hundred and five", [105]),
        ("two thousand and six and seven", [2006, 7]),
        ("four two seven", [427]),
        ("minus three point five", [-3.5]),
        ("a dozen eggs and a couple of nuts", [12, 2]),
        ("half a litre", [0.5]),
        ("a hundred", [100]),
        ("twenty-one", [21]),
        ("1,500 or 3.25", [1500, 3.25]),
        ("3 million", [3_000_000]),
        ("two hundred and", [200]),
        ("a an and point", []),
        ("ten five", [10, 5]),
        ("nothing here", []),
    ],
)
def test_numbers_are_read(text: str, values: list[float]) -> None:
    assert [number.value for number in find_numbers(text.split())] == values


@given(st.integers(-999_999_999, 999_999_999))
def test_what_is_said_is_read_again(value: int) -> None:
    words = say_number(value).split()
    found = read_number(words)
    assert found is not None
    assert (found.value, found.end) == (value, len(words))


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "zero"), (84.0, "eighty four"), (70.5, "seventy point five"), (-2.25, "minus two point two five"),
     (1_000_000_000, "1000000000"), (float("inf"), "not a number"), (1e-9, "zero")],
)  # fmt: skip
def test_odd_numbers_are_said(value: float, said: str) -> None:
    assert say_number(value) == said


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("ten minutes and thirty seconds", 630),
        ("for an hour and a half please", 5400),
        ("half an hour", 1800),
        ("two and a half", None),
        ("one hour ten minutes", 4200),
        ("five minutes or maybe two hours", 300),
        ("two hours and a half", 9000),
        ("a minute", 60),
        ("500 milliseconds", 0.5),
    ],
)
def test_durations_are_read_in_seconds(text: str, seconds: float | None) -> None:
    found = find_duration(text.split())
    assert (found.value if found else None) == seconds
