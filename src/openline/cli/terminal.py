"""The terminal: colour where it helps, one line that grows, and plain text when nobody looks.

Colour only on a terminal and without NO_COLOR (https://no-color.org). Piped output has no escape codes and
no growing line: only what is final is printed.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Mapping
from typing import TextIO

STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
WIDTH_MIN, WIDTH_MAX = 40, 120
"""Narrower cannot hold the columns; wider lines are hard to read."""
PIPED_WIDTH = 100
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """Prints to ``out``. ``live`` shows a line that the next call replaces; ``line`` prints for good."""

    def __init__(self, out: TextIO, *, is_tty: bool, colour: bool, width: int) -> None:
        self.is_tty = is_tty
        self.colour = colour
        self._out = out
        self._width = width
        self._live = ""

    @classmethod
    def of(cls, out: TextIO | None = None, environment: Mapping[str, str] | None = None) -> Terminal:
        out = sys.stdout if out is None else out
        environment = os.environ if environment is None else environment
        is_tty = out.isatty() and environment.get("TERM") != "dumb"
        return cls(out, is_tty=is_tty, colour=is_tty and not environment.get("NO_COLOR"), width=0)

    @property
    def width(self) -> int:
        """Columns to use; asked anew each time, because windows are resized."""
        if self._width:
            return self._width
        columns = shutil.get_terminal_size((80, 24)).columns if self.is_tty else PIPED_WIDTH
        return max(WIDTH_MIN, min(columns, WIDTH_MAX))

    def paint(self, text: str, *styles: str) -> str:
        if not self.colour or not text or not styles:
            return text
        return f"\x1b[{';'.join(STYLES[style] for style in styles)}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """Print a line for good; a live line is replaced by it."""
        self._write(self._erase() + text + "\n")

    def live(self, text: str) -> None:
        """Show ``text`` (its last columns if it is too long) until the next call. Nothing when piped."""
        if self.is_tty and text != self._live:
            shown = tail_of(text, self.width - 1)
            # One write: an erase that is shown by itself is what flicker is.
            self._write(f"\r{shown}\x1b[K")
            self._live = text

    def settle(self) -> None:
        """Remove the live line."""
        erased = self._erase()
        if erased:
            self._write(erased)

    def wrapped(self, text: str, *, indent: int, first: str = "", styles: tuple[str, ...] = ()) -> list[str]:
        """``text`` in lines of the width, each behind ``indent`` columns; ``first`` stands in the first one's."""
        lines = textwrap.wrap(clean(text), max(20, self.width - indent - 1)) or [""]
        pad = " " * indent
        head = first + " " * max(0, indent - columns_of(first))
        return [(head if at == 0 else pad) + self.paint(part, *styles) for at, part in enumerate(lines)]

    def _erase(self) -> str:
        if not self._live:
            return ""
        self._live = ""
        return "\r\x1b[K"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def columns_of(text: str) -> int:
    """Columns that ``text`` takes on a terminal, escapes aside."""
    plain = _ESCAPES.sub("", text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in plain)


def tail_of(text: str, columns: int) -> str:
    """Text that fits: its end, behind an ellipsis. Escapes are kept only when nothing is cut."""
    if columns_of(text) <= columns:
        return text
    plain = _ESCAPES.sub("", text)
    while columns_of(plain) > columns - 1:
        plain = plain[1:]
    return "…" + plain


def head_of(text: str, columns: int) -> str:
    """Text that fits: its beginning, before an ellipsis."""
    if columns_of(text) <= columns:
        return text
    plain = _ESCAPES.sub("", text)
    while columns_of(plain) > columns - 1:
        plain = plain[:-1]
    return plain + "…"


def clean(text: str) -> str:
    """What others wrote, safe to print: control characters (an escape could rewrite the screen) as blanks."""
    return "".join(c if c.isprintable() else " " for c in text)
