"""The caller's audio on its way up, in the format that the provider takes.

A change of formats is asked for by itself, and audio waits for the answer: until then nobody knows what the provider
would take it for. A refusal is no loss: audio goes on in the format of before, transcoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from openline.adapters.link_openai_realtime.formats import Formats, Transcoder, silence
from openline.adapters.link_openai_realtime.turns import Turns
from openline.core.audio import samples_of
from openline.core.model import AudioFormat, SessionConfig
from openline.types import ItemId
from openline.wire import upstream
from openline.wire.items import JsonObject

SWITCH_S = 5.0
"""How long the answer to a change of formats may take; a provider that does not give it is tried anew."""
WAITING_MAX = 1_000
"""Pieces of audio and commands about it that wait so long: four times what a talker sends in that time."""
Pair = tuple[AudioFormat, AudioFormat]
"""What is heard, what is said."""


class Up(Protocol):
    """The socket. ``is_writable`` False: so much is unsent that new audio would come too late to be of use."""

    is_writable: bool

    @property
    def send(self) -> Callable[[bytes], object]: ...


class Line(Protocol):
    """What of its provider session the audio needs."""

    def update_session(self, session: JsonObject) -> str:
        """Sends it; the event id."""

    def later(self, seconds: float, do: Callable[[], None]) -> object: ...

    def input_changed(self) -> None:
        """``input_format`` is another one now."""

    def takes(self, formats: Pair) -> None:
        """The provider has agreed to ``formats``, or is taken to."""

    def unanswered(self) -> None:
        """The provider does not say whether it takes the formats."""


class CallerAudio:
    """``input_format``: what the provider is sent, or will be once it has agreed to it. ``socket``: where to, once
    there is one. ``appended``: samples given to the link so far, which the link counts; what goes straight is counted
    here. ``may_go_straight``: the link has nothing to do with what is said, either."""

    __slots__ = (
        "_asked",
        "_counts",
        "_declined",
        "_formats",
        "_is_behind",
        "_kind",
        "_line",
        "_switch",
        "_taken",
        "_transcoder",
        "_turns",
        "_waiting",
        "appended",
        "input_format",
        "may_go_straight",
        "socket",
    )

    def __init__(
        self,
        line: Line,
        turns: Turns,
        formats: Formats,
        counts: Counter[str],
        kind: upstream.Kind = "realtime",
    ) -> None:
        self._kind = kind
        self._line = line
        self._turns = turns
        self._formats = formats
        self._counts = counts
        self._transcoder = Transcoder(formats)
        self._taken: Pair = ("pcm", "pcm")
        self._asked: Pair = ("pcm", "pcm")
        self._declined: set[Pair] = set()
        """What this session was asked for and did not do: it is not asked again."""
        self._switch = ""
        """Id of the session.update that asks; "" while nothing is asked."""
        self._waiting: list[Callable[[], None]] = []
        """What was done to the caller's audio meanwhile, in order."""
        self._is_behind = False
        """What came all at once is not through yet: what is said now must come after it, however late."""
        self.appended = 0
        self.input_format: AudioFormat = "pcm"
        self.may_go_straight = False
        self.socket: Up | None = None

    # -- audio

    def straight(self, data: bytes, samples: int, frame: bytes) -> bool:
        """``append`` of PCM16 where it comes down to this, as it does for nearly all that is said."""
        socket = self.socket
        if (
            not self.may_go_straight
            or self._switch
            or self._is_behind
            or self.input_format != "pcm"
            or socket is None
            or not socket.is_writable
        ):
            return False
        self.appended += samples
        self._turns.position += samples
        socket.send(upstream.append_audio(data, frame))
        return True

    def append(self, name: AudioFormat, data: bytes, samples: int, frame: bytes = b"") -> None:
        """``samples``: how far it moves the link's position. ``frame``: as ``upstream.append_audio`` takes it."""
        if self._switch:
            self._wait(lambda: self.append(name, data, samples), samples)
            return
        if name != self.input_format:
            data, frame = self._transcoder.convert(name, self.input_format, data), b""
        socket = self.socket
        if socket is None or not (socket.is_writable or self._is_behind):
            self._drop(samples)
            return
        self._is_behind = not socket.is_writable
        self._turns.position += samples
        socket.send(upstream.append_audio(data, frame))

    def _wait(self, act: Callable[[], None], samples: int) -> None:
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(act)
        else:
            self._drop(samples)

    def _drop(self, samples: int) -> None:
        self._counts["dropped_audio"] += 1
        self._turns.skip(samples)

    def append_again(self, name: AudioFormat, data: bytes, samples: int) -> None:
        """Audio that was held, or given to an earlier socket: it comes all at once, and waits where the line is full."""
        if self._switch:
            self._waiting.append(lambda: self.append_again(name, data, samples))
            return
        self._turns.position += samples
        self.replay(name, data)

    def replay(self, name: AudioFormat, data: bytes) -> None:
        """Audio that was counted already."""
        if self._switch:
            self._waiting.append(lambda: self.replay(name, data))
            return
        self._send(self._transcoder.convert(name, self.input_format, data))

    def fill(self, ms: int) -> None:
        """Silence that nobody sent."""
        if not self._switch:
            data = silence(self.input_format, ms)
            self._turns.filled(samples_of(self.input_format, data))
            self._send(data)

    def _send(self, data: bytes) -> None:
        if self.socket is not None:
            self.socket.send(upstream.append_audio(data))
        self._look_behind()

    def _look_behind(self) -> None:
        """Call after what may not be dropped: whether it has filled the line."""
        self._is_behind = self.socket is not None and not self.socket.is_writable

    def then(self, do: Callable[[], None]) -> None:
        """``do`` commits or clears what came before it."""
        if self._switch:
            self._waiting.append(do)
        else:
            do()

    def recognize(self, item_id: ItemId, pcm: bytes, detection: JsonObject | None) -> bool:
        """As ``Turns.recognize``. False also while formats are asked for: nobody knows what it would have to be."""
        if self._switch:
            return False
        data = self._transcoder.whole(self.input_format, pcm)
        is_sent = self._turns.recognize(item_id, self.input_format, data, detection)
        self._look_behind()
        return is_sent

    # -- formats

    @property
    def is_waiting(self) -> bool:
        """A change of formats was asked for, and audio waits for the answer."""
        return bool(self._switch)

    @property
    def asked(self) -> Pair:
        """The formats that the provider is told of with its other settings."""
        return self._asked

    def open_with(self, config: SessionConfig) -> None:
        """``asked`` is what a session that begins is to be asked for, as ``config`` says and the provider takes."""
        self._asked = self._wanted(config)

    def _wanted(self, config: SessionConfig) -> Pair:
        wanted = self._formats.wanted(config)
        return wanted.input_format, wanted.output_format

    def switch(self, config: SessionConfig) -> None:
        """Ask for the formats that are wanted now, if they are others; audio waits from here on."""
        if self._switch:
            self._waiting.append(lambda: self.switch(config))
            return
        asked = self._wanted(config)
        if asked == self._taken or asked in self._declined:
            return
        self._asked = asked
        self._set_input(asked[0])
        self._switch = event_id = self._line.update_session(upstream.format_settings(*asked, self._kind))
        self._waiting.insert(0, lambda: self.switch(config))  # what was refused: the next best
        self._line.later(SWITCH_S, lambda: self._line.unanswered() if self._switch == event_id else None)

    def answered(
        self, event_id: str, told: tuple[AudioFormat | None, AudioFormat | None], *, is_open: bool
    ) -> None:
        """A session.updated, which answers ``event_id``. What the provider says it does counts for more than what
        it was asked."""
        if not self._formats.can_transcode:
            told = (None, None)  # Whatever it says, it is given what was asked for.
        if self._switch and event_id != self._switch and told != self._asked:
            return  # It answers something before.
        asked = self._asked
        taken = (told[0] or asked[0], told[1] or asked[1])
        if taken != asked and (self._switch or not is_open):
            self._declined.add(asked)
            self._formats.refuse_all(asked, but=taken)
        if taken != self._taken or self._switch or not is_open:
            self._settle(taken)

    def refused(self, event_id: str | None, param: str, code: str, *, is_open: bool) -> bool:
        """Whether an error means the formats that were asked for; then the others are asked for.

        At the opening an error that names nothing may mean them. Not open, the caller asks anew.
        """
        if not is_open:
            return (not param or "format" in param) and self._formats.refuse_all(self._asked, param)
        is_answer = event_id == self._switch if event_id is not None else "format" in f"{param} {code}"
        if not self._switch or not is_answer:
            return False
        self._declined.add(self._asked)
        self._formats.refuse_all(self._asked, param)
        self._settle(self._taken)
        return True

    def _settle(self, taken: Pair) -> None:
        self._taken = self._asked = taken
        self._set_input(taken[0])
        self._switch = ""
        self._line.takes(taken)
        while self._waiting and not self._switch:
            self._waiting.pop(0)()

    def _set_input(self, name: AudioFormat) -> None:
        if name != self.input_format:
            self.input_format = name
            self._line.input_changed()
