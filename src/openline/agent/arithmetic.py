"""Arithmetic from digits or words, with bounds on everything. No ``eval``: a caller's words come in here."""

from __future__ import annotations

import math
import re

from openline.errors import ToolError

MAX_LENGTH = 200
"""Characters of an expression: more than anyone says in one breath."""
MAX_DEPTH = 30
"""Parentheses inside parentheses."""
MAX_VALUE = 1e15
"""Largest result, also in between: the last whole numbers that a double holds exactly are near 9e15."""
MAX_EXPONENT = 64

_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|\*\*|[-+*/%()^])")
_SMALL = {word: value for value, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen".split()
)}  # fmt: skip
_TENS = {word: 20 + 10 * at for at, word in enumerate(
    "twenty thirty forty fifty sixty seventy eighty ninety".split()
)}  # fmt: skip
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_SIGNS = (
    (r"to the power of|raised to(?: the)?", "**"), (r"multiplied by|times|x", "*"), (r"divided by|over", "/"),
    (r"percent of", "/ 100 *"), (r"percent", "/ 100"), (r"modulo|mod", "%"), (r"plus|add", "+"), (r"minus|negative", "-"),
    (r"squared", "** 2"), (r"cubed", "** 3"), (r"half of", "0.5 *"), (r"a dozen|dozen", "12"),
)  # fmt: skip
_LEAD_IN = re.compile(r"^(?:please\s+)?(?:what is|what's|whats|calculate|compute|work out|how much is)\s+")


def evaluate(expression: str) -> int | float:
    """The value of ``2 * (3 + 4)`` or "twelve times seven". Whole results are int.

    Knows + - * / % ** (also ^), parentheses, decimals, number words and words for the signs. Raises
    ToolError: too long, too deep, too large, a division by zero, or something that is no arithmetic.
    """
    if len(expression) > MAX_LENGTH:
        raise ToolError(
            f"expression: expected at most {MAX_LENGTH} characters; got {len(expression)}.",
            hint="Ask for less at once.",
        )
    value = _Parser(_tokens(expression)).whole()
    return int(value) if float(value).is_integer() else value


def _tokens(expression: str) -> list[str]:
    text = _LEAD_IN.sub("", expression.lower().strip().rstrip("?=. "))
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    for words, sign in _SIGNS:
        text = re.sub(rf"\b(?:{words})\b", f" {sign} ", text)
    text = re.sub(r"[a-z]+(?:(?:\s+|-)[a-z]+)*", lambda found: _number(found.group()), text)
    text = text.replace("^", "**").replace("\u00d7", "*").replace("\u00f7", "/")
    tokens: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _no_arithmetic()
        tokens.append(found.group(1))
        at = found.end()
    return tokens


def _number(words: str) -> str:
    """``one hundred and five point two`` as digits. Raises ToolError for other words."""
    whole, _, decimals = words.replace("-", " ").partition(" point ")
    total = current = 0
    for word in whole.split():
        if word in _SMALL or word in _TENS:
            current += _SMALL.get(word, 0) + _TENS.get(word, 0)
        elif word == "hundred":
            current = max(current, 1) * 100
        elif word in _SCALES:
            total, current = total + max(current, 1) * _SCALES[word], 0
        elif word not in ("and", "a", "the"):
            raise _no_arithmetic()
    digits = [_SMALL.get(word, 10) for word in decimals.split()]
    if any(digit > 9 for digit in digits):
        raise _no_arithmetic()
    return f"{total + current}" + (f".{''.join(map(str, digits))}" if digits else "")


def _no_arithmetic() -> ToolError:
    return ToolError(
        "expression: expected numbers, + - * / % ** and parentheses; got something else.",
        hint="Say only the sum, like 'twelve times seven'.",
    )


class _Parser:
    """Recursive descent: sum of products of powers of signed atoms."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def whole(self) -> int | float:
        value = self.sum()
        if self.at != len(self.tokens):
            raise _no_arithmetic()
        return value

    def take(self, *wanted: str) -> str:
        if self.at < len(self.tokens) and self.tokens[self.at] in wanted:
            self.at += 1
            return self.tokens[self.at - 1]
        return ""

    def sum(self) -> int | float:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ToolError(
                f"expression: expected at most {MAX_DEPTH} parentheses inside each other; got more."
            )
        value = self.product()
        while sign := self.take("+", "-"):
            other = self.product()
            value = _bounded(value + other if sign == "+" else value - other)
        self.depth -= 1
        return value

    def product(self) -> int | float:
        value = self.signed()
        while sign := self.take("*", "/", "%"):
            other = self.signed()
            if sign != "*" and other == 0:
                raise ToolError(
                    "expression: expected no division by zero; got one.", hint="Change the divisor."
                )
            value = _bounded(
                value * other if sign == "*" else value / other if sign == "/" else value % other
            )
        return value

    def signed(self) -> int | float:
        is_negative = False
        while sign := self.take("-", "+"):
            is_negative ^= sign == "-"
        value = self.power()
        return -value if is_negative else value

    def power(self) -> int | float:
        base = self.atom()
        if not self.take("**"):
            return base
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ToolError(f"expression: expected at most {MAX_DEPTH} powers of powers; got more.")
        exponent = self.signed()
        self.depth -= 1
        if abs(exponent) > MAX_EXPONENT:
            raise ToolError(f"expression: expected exponents up to {MAX_EXPONENT}; got a larger one.")
        if base == 0 and exponent < 0:
            raise ToolError("expression: expected no division by zero; got one.", hint="Change the exponent.")
        # In doubles: a whole base could grow to thousands of digits before it is judged.
        result = float(base) ** float(exponent)
        return _bounded(result)

    def atom(self) -> int | float:
        if self.take("("):
            value = self.sum()
            if not self.take(")"):
                raise _no_arithmetic()
            return value
        token = self.tokens[self.at] if self.at < len(self.tokens) else ""
        if not token[:1].isdigit():
            raise _no_arithmetic()
        self.at += 1
        return _bounded(float(token) if "." in token or len(token) > 15 else int(token))


def _bounded(value: complex) -> int | float:
    if isinstance(value, int) and abs(value) <= MAX_VALUE:
        return value
    if not isinstance(value, float) or not math.isfinite(value) or abs(value) > MAX_VALUE:
        raise ToolError(
            f"expression: expected real results up to {MAX_VALUE:.0e}; got another.",
            hint="Use smaller numbers.",
        )
    return int(value) if value.is_integer() else value
