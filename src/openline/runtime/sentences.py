"""Cut a stream of text into pieces that a synthesizer can speak well: sentences, or long clauses."""

from __future__ import annotations

import re

FIRST_MIN_CHARS = 12
"""A first piece shorter than this waits for more: "Hm." alone sounds clipped."""
CLAUSE_MIN_CHARS = 80
"""Past this a comma or semicolon is a good enough place to begin speaking."""
PIECE_MAX_CHARS = 300
"""A text without any stop is cut at a blank here: the listener waits for the first audio."""

_END = re.compile(r"[.!?…]+[\"')\]]*(?=\s)|\n+")
_CLAUSE = re.compile(r"[,;:–—](?=\s)")


class Sentences:
    """``push`` text as it streams, take out what is ready; ``flush`` gives the rest. Nothing is lost or added:
    the pieces joined are the text."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = ""

    def push(self, text: str) -> list[str]:
        self._rest += text
        ready: list[str] = []
        while (end := self._cut()) is not None:
            ready.append(self._rest[:end])
            self._rest = self._rest[end:]
        return ready

    def flush(self) -> list[str]:
        rest, self._rest = self._rest, ""
        return [rest] if rest else []

    def _cut(self) -> int | None:
        for match in _END.finditer(self._rest):
            if match.end() >= FIRST_MIN_CHARS:
                return match.end()
        if len(self._rest) > CLAUSE_MIN_CHARS:
            for match in _CLAUSE.finditer(self._rest, CLAUSE_MIN_CHARS // 2):
                return match.end()
        if len(self._rest) > PIECE_MAX_CHARS:
            blank = self._rest.rfind(" ", 1, PIECE_MAX_CHARS)
            return blank if blank > 0 else PIECE_MAX_CHARS
        return None
