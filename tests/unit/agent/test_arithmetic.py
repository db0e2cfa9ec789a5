"""Sums from digits and words, and the bounds on them."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.agent.arithmetic import MAX_VALUE, evaluate
from openline.errors import ToolError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12*7", 84),
        ("twelve times seven", 84),
        ("what is (3 + 4) * 2?", 14),
        ("twenty divided by four plus one", 6),
        ("minus two squared", -4),
        ("2 ** 3 ** 2", 512),
        ("2^-1", 0.5),
        ("ten percent of 250", 25),
        ("seven modulo four", 3),
        ("one hundred and five minus twenty-one", 84),
        ("two thousand and six over two", 1003),
        ("three point five plus 1.5", 5),
        ("1,000 + 1", 1001),
        ("half of eighty", 40),
        ("--5", 5),
        ("7 / 2", 3.5),
        ("five cubed", 125),
        ("two to the power of ten", 1024),
        ("two million times three hundred", 600_000_000),
    ],
)
def test_it_adds_up(text: str, value: float) -> None:
    found = evaluate(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["", "hello", "1 +", "(1", "1)", "1 / 0", "1 % 0", "0 ** -1", "2 ** 65", "9 ** 9 ** 9", "1e9", "10 ** 16", "(-8) ** 0.5",
     "__import__('os')", "1;2", "3 4", "one point twelve", "(" * 40 + "1" + ")" * 40, "1+" * 150 + "1", "2**" * 60 + "1",
     "9" * 190],
)  # fmt: skip
def test_what_is_no_sum_is_refused_in_words(text: str) -> None:
    with pytest.raises(ToolError, match="expected") as caught:
        evaluate(text)
    assert len(text) < 5 or text not in str(caught.value), "the caller's words are not repeated"


@given(st.text("0123456789+-*/%(). ^", max_size=60))
def test_any_text_gives_a_bounded_number_or_a_tool_error(text: str) -> None:
    try:
        assert abs(evaluate(text)) <= MAX_VALUE
    except ToolError:
        pass


@given(st.integers(0, 999), st.integers(1, 999), st.sampled_from(["+", "-", "*", "/", "%"]))
def test_it_agrees_with_python(one: int, other: int, sign: str) -> None:
    known = {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": operator.truediv,
        "%": operator.mod,
    }
    assert evaluate(f"{one} {sign} {other}") == known[sign](one, other)
