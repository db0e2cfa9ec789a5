"""What the demo looks like: a column of times, a column of who, and what happened; one line grows."""

from __future__ import annotations

import time

from openline.cli.terminal import Terminal, columns_of, tail_of

TIME_COLUMNS, ACTOR_COLUMNS = 6, 9
INDENT = TIME_COLUMNS + 2 + ACTOR_COLUMNS
ACTORS = {
    "caller": ("cyan", "bold"),
    "agent": ("green", "bold"),
    "tool": ("yellow", "bold"),
    "line": ("blue", "bold"),
    "gateway": ("magenta", "bold"),
    "record": ("magenta",),
}


class Screen:
    """Times are seconds since it was made."""

    def __init__(self, term: Terminal) -> None:
        self.term = term
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def title(self, text: str) -> None:
        """A new act."""
        rule = "─" * max(4, self.term.width - len(text) - 6)
        self.term.line()
        self.term.line(
            self.term.paint("── ", "dim") + self.term.paint(text, "bold") + " " + self.term.paint(rule, "dim")
        )

    def say(self, actor: str, text: str, note: str = "", *, strong: bool = False) -> None:
        """Something happened: who, what, and in dim letters how."""
        term = self.term
        for line in term.wrapped(
            text, indent=INDENT, first=self._head(actor), styles=("bold",) if strong else ()
        ):
            term.line(line)
        if note:
            self.note(note)

    def note(self, text: str) -> None:
        for line in self.term.wrapped(text, indent=INDENT, styles=("dim",)):
            self.term.line(line)

    def live(self, actor: str, text: str, before: str = "") -> None:
        """What is happening now, in one line that the next call replaces; the end of a long text is shown."""
        room = self.term.width - INDENT - columns_of(before) - 2
        self.term.live(self._head(actor) + self.term.paint(before, "dim") + tail_of(text, room))

    def verdict(self, is_good: bool, text: str) -> None:
        mark = self.term.paint("  ✓ ", "green", "bold") if is_good else self.term.paint("  ✗ ", "red", "bold")
        for line in self.term.wrapped(text, indent=4, first=mark):
            self.term.line(line)

    def _head(self, actor: str) -> str:
        when = self.term.paint(f"{self.elapsed_s:{TIME_COLUMNS}.1f}", "dim")
        return f"{when}  {self.term.paint(f'{actor:<{ACTOR_COLUMNS}}', *ACTORS.get(actor, ()))}"
