"""A transcript as ``/audio/transcriptions`` gives it: whole, or in pieces as server-sent events.

Facts: openai-python 3.54 ``types/audio/transcription_*``: ``transcript.text.delta`` adds text, ``transcript.text.done``
repeats all of it. Reading never raises: what a server sends is its own choice.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct


class _Whole(Struct):
    text: str


class _Event(Struct):
    type: str | None = None
    delta: str | None = None
    text: str | None = None
    error: msgspec.Raw = msgspec.Raw()


_whole: Final = msgspec.json.Decoder(_Whole)
_event: Final = msgspec.json.Decoder(_Event)


def whole_text(answer: bytes) -> str | None:
    """The text of a JSON answer; None if it has none."""
    try:
        return _whole.decode(answer).text.strip()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class TranscriptStream:
    """One streamed answer. ``feed`` takes it in any pieces, ``end`` at its end; then ``final`` is the text, or None if
    it broke off.

    ``text``: the words so far. ``is_foreign``: nothing came that this protocol has; another answer may be had by
    asking without a stream. ``has_failed``: the server said that it failed.
    """

    def __init__(self) -> None:
        self.text = ""
        self.final: str | None = None
        self.is_foreign = True
        self.has_failed = False
        self._line = bytearray()
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> bool:
        """Whether there are more words now."""
        before = len(self.text)
        self._line += chunk
        *lines, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            self._take(line.removesuffix(b"\r"))
        return len(self.text) > before

    def end(self) -> None:
        self._take(bytes(self._line).removesuffix(b"\r"))
        self._take(b"")

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif not line and self._data:
            data, self._data = b"\n".join(self._data), []
            self._event(data)

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]":
            # A server that ends so and repeats nothing: its pieces are the whole.
            self.final = self.final if self.is_foreign or self.final is not None else self.text.strip()
            return
        try:
            event = _event.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if event.type == "transcript.text.delta":
            self.text += event.delta or ""
        elif event.type == "transcript.text.done":
            self.final = (self.text if event.text is None else event.text).strip()
        elif event.type == "error" or event.error:
            self.has_failed = True
        else:
            return
        self.is_foreign = False
