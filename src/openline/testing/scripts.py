"""What a scripted model says and when it believes the user spoke: data and pure functions, no time.

A *script* turns the context of a response into a ``ReplyPlan``. ``ScriptedEars`` turns caller audio
into speech boundaries by a mark in the samples, so that a test decides in the audio itself what is
speech and, if it likes, what was said (``scripted_speech``).
"""

from __future__ import annotations

import array
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from openline.core.model import Item, ResponseRequest, SessionConfig

RATE = 24_000
LOUD = 20_000
"""First sample of a frame that counts as speech. Any other value there is silence."""
FRAME_SAMPLES = 480
_LOUD_BYTES = LOUD.to_bytes(2, "little", signed=True)
_WORDS_PER_SECOND = 3
_MAX_TEXT_BYTES_A_FRAME = FRAME_SAMPLES - 2

Failure = Literal[
    "none",
    "lost",  # the link is lost after ``fail_at_chunk`` audio chunks
    "rejected",  # the same, but permanently (LinkRejected)
    "failed",  # response_finished("failed:server_error") after ``fail_at_chunk`` chunks
    "never_answers",  # start_response leads to nothing at all
    "stalls",  # nothing more after ``fail_at_chunk`` chunks; the link stays open
    "no_audio",  # words, a normal finish, and not one sample
    "late_finish",  # deaf to cancel: the rest and the finish come after it
    "finish_twice",  # response_finished twice
    "message_finish_twice",
    "unknown_response",  # every delta also comes for a response that does not exist
]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call that a reply makes; ``arguments`` is JSON text and is streamed in two pieces."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """One reply. Times in virtual or real milliseconds, whatever the link's scheduler keeps.

    ``audio_ms`` None: three words a second, at least one chunk. ``tone_hz`` 0: zero PCM.
    ``chunk_delay_ms`` between chunks of ``chunk_ms`` of audio: smaller than ``chunk_ms`` is faster than
    real time, as real models are. ``finish_delay_ms``: between the last delta and the finish.
    """

    text: str = ""
    calls: tuple[ToolUse, ...] = ()
    audio_ms: int | None = None
    tone_hz: int = 440
    chunk_ms: int = 40
    first_delay_ms: int = 20
    chunk_delay_ms: int = 5
    finish_delay_ms: int = 0
    failure: Failure = "none"
    fail_at_chunk: int = 1
    reason: str = "completed"

    @property
    def spoken_ms(self) -> int:
        if self.audio_ms is not None:
            return self.audio_ms
        return max(self.chunk_ms, len(self.text.split()) * 1000 // _WORDS_PER_SECOND)


@dataclass(frozen=True, slots=True)
class ScriptContext:
    """What a script sees: ``ordinal`` counts the responses of this link from 0."""

    ordinal: int
    items: tuple[Item, ...]
    request: ResponseRequest
    config: SessionConfig

    @property
    def last_user_text(self) -> str:
        return next((item.text for item in reversed(self.items) if item.role == "user"), "")

    @property
    def last(self) -> Item | None:
        return self.items[-1] if self.items else None


Script = Callable[[ScriptContext], ReplyPlan]

_CALL = re.compile(r"call ([A-Za-z0-9_.-]+)(?: with (\{.*?\}))?(?: and (?=call )|[.!?]?$)", re.IGNORECASE)


def echo_script(context: ScriptContext) -> ReplyPlan:
    """The default model: small, predictable, and able to do what tests need by being asked.

    ``call NAME with JSON [and call …]`` makes tool calls; after their outputs it reads the last one
    out. ``long`` speaks for 10 s. ``say X`` says X. Anything else: ``You said: X.``
    """
    if context.request.verbatim is not None:
        return ReplyPlan(text=context.request.verbatim)
    last = context.last
    if last is not None and last.type in ("function_call_output", "mcp_call"):
        return ReplyPlan(text=f"The tool said: {last.output or last.error}")
    said = context.last_user_text.strip()
    if said.lower().startswith("call "):
        calls = tuple(ToolUse(name, arguments or "{}") for name, arguments in _CALL.findall(said))
        if calls:
            return ReplyPlan(calls=calls)
    if said.lower().rstrip(".!") == "long":
        return ReplyPlan(text=" ".join(f"word{number}" for number in range(1, 31)), audio_ms=10_000)
    if said.lower().startswith("say "):
        return ReplyPlan(text=said[4:])
    return ReplyPlan(text=f"You said: {said.rstrip('.')}." if said else "Hello.")


def play_list(plans: Sequence[ReplyPlan], then: Script = echo_script) -> Script:
    """The k-th response of a link gets the k-th plan; after the last one ``then`` decides."""
    return lambda context: plans[context.ordinal] if context.ordinal < len(plans) else then(context)


def tone(samples: int, hz: int) -> bytes:
    """``samples`` of PCM16 24 kHz mono at a quarter of full scale; ``hz`` 0 is digital silence."""
    if hz == 0:
        return bytes(samples * 2)
    step = 2 * math.pi * hz / RATE
    return array.array("h", (int(8000 * math.sin(step * number)) for number in range(samples))).tobytes()


def scripted_speech(text: str = "", ms: int = 500) -> bytes:
    """Caller audio that ``ScriptedEars`` takes for speech and out of which it reads ``text``.

    ``ms`` is rounded up to 20 ms frames; send it in frames of 20 ms (960 bytes), each begins with the mark.
    """
    raw = text.encode()
    frames = max(-(-ms // 20), -(-len(raw) // _MAX_TEXT_BYTES_A_FRAME))
    audio = bytearray()
    for number in range(frames):
        piece = raw[number * _MAX_TEXT_BYTES_A_FRAME : (number + 1) * _MAX_TEXT_BYTES_A_FRAME]
        frame = array.array("h", [LOUD, len(piece), *piece])
        audio += frame.tobytes() + bytes((FRAME_SAMPLES - len(frame)) * 2)
    return bytes(audio)


def words_in_speech(pcm: bytes) -> str:
    """What ``scripted_speech`` put into audio, wherever its frames begin; what is there twice is told twice."""
    found = bytearray()
    at = pcm.find(_LOUD_BYTES)
    while at >= 0:
        if at % 2 == 0:
            found += _carried(pcm[at : at + FRAME_SAMPLES * 2])
        at = pcm.find(_LOUD_BYTES, at + 1)
    return found.decode(errors="replace")


def scripted_silence(ms: int) -> bytes:
    return bytes(ms * RATE // 1000 * 2)


@dataclass(frozen=True, slots=True)
class Heard:
    """A boundary at input sample ``at``; at ``stopped`` also where the speech began and what it carried."""

    kind: Literal["maybe", "not_speech", "started", "stopped"]
    at: int
    onset: int = 0
    text: str = ""


class ScriptedEars:
    """Finds speech by the mark, counted in samples and never by a clock.

    ``started`` after ``start_ms`` of loud frames (``maybe`` at the first of them, ``not_speech`` if
    it stays too short); ``stopped`` after ``silence_ms`` of quiet ones. ``mark_offset``: the byte of each
    frame at which the mark stands (8 behind a time stamp). ``at`` of stopped is the end of the speech.
    """

    __slots__ = (
        *(
            "_is_speech",
            "_last_loud_end",
            "_mark",
            "_onset",
            "_start_samples",
            "_text",
            "position",
            "silence_ms",
        ),
    )

    def __init__(self, *, start_ms: int = 60, silence_ms: int = 200, mark_offset: int = 0) -> None:
        self.position = 0
        self.silence_ms = silence_ms
        self._start_samples = start_ms * RATE // 1000
        self._mark = mark_offset
        self._is_speech = False
        self._onset: int | None = None
        self._last_loud_end = 0
        self._text = bytearray()

    def push(self, pcm: bytes) -> Heard | None:
        """One frame as the client sent it, PCM16. At most one boundary comes of it."""
        begin = self.position
        self.position = begin + (len(pcm) >> 1)
        if pcm.startswith(_LOUD_BYTES, self._mark):
            return self._loud(begin, pcm)
        return None if self._onset is None else self._quiet()

    def take_text(self) -> str:
        """What loud frames have carried since the last call."""
        text = self._text.decode(errors="replace")
        self._text.clear()
        return text

    def forget(self) -> None:
        """Drop an open utterance without a boundary (the buffer was cleared or committed by hand)."""
        self._is_speech = False
        self._onset = None
        self._text.clear()

    def _loud(self, begin: int, pcm: bytes) -> Heard | None:
        self._last_loud_end = self.position
        self._text += _carried(pcm)
        is_first = self._onset is None
        onset = begin if self._onset is None else self._onset
        self._onset = onset
        if not self._is_speech and self.position - onset >= self._start_samples:
            self._is_speech = True
            return Heard("started", onset)
        return Heard("maybe", begin) if is_first else None

    def _quiet(self) -> Heard | None:
        if not self._is_speech:
            self.forget()
            return Heard("not_speech", self.position)
        if self.position - self._last_loud_end < self.silence_ms * RATE // 1000:
            return None
        heard = Heard("stopped", self._last_loud_end, self._onset or 0, self.take_text())
        self.forget()
        return heard


def _carried(pcm: bytes) -> bytes:
    """The text bytes in one frame of ``scripted_speech``; nothing for any other loud frame."""
    length = int.from_bytes(pcm[2:4], "little")
    if length == 0 or length > _MAX_TEXT_BYTES_A_FRAME or len(pcm) < 4 + 2 * length:
        return b""
    return pcm[4 : 4 + 2 * length : 2] if not any(pcm[5 : 4 + 2 * length : 2]) else b""
