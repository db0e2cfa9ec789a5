"""The floor machine: who speaks now, from voice probabilities. Pure and volatile: nothing of it is stored.

It feeds the session inputs (speech started, speech stopped) and tells the playout to hold or go on while
it makes up its mind. Positions are samples of the session's input track (24 kHz).

Rules, in the order in which a caller meets them:
- Speech counts from ``START_MS`` of voice when nobody is talking, and only from ``interrupt_ms`` when
  the agent is: a cough is no turn. While that is undecided the agent's audio is held; if it was nothing,
  the audio goes on (false interruption).
- A turn ends after ``silence_ms`` without voice, or when no audio at all comes for that long (muted).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openline.core.audio import samples_of_ms
from openline.core.value import Value

START_MS = 96
"""Voice needed to open a turn when the agent is silent: three Silero frames of 32 ms."""
INTERRUPT_MS = 160
"""Voice needed to interrupt the agent: five frames; shorter sounds (cough, click, "mm") hold and release."""
GIVE_UP_MS = 160
"""Silence after which an undecided sound was nothing."""
HYSTERESIS = 0.15
"""Voice goes on down to threshold minus this (Silero's own recommendation for its iterator)."""
STARVED_MS = 400
"""Grace on top of the silence window when no audio arrives at all: jitter of a bad mobile line."""


class Hold(Value, frozen=True):
    """Maybe an interruption: stop releasing audio."""


class Release(Value, frozen=True):
    """It was nothing: go on."""


class Started(Value, frozen=True):
    start: int


class Stopped(Value, frozen=True):
    start: int
    end: int


FloorEvent = Hold | Release | Started | Stopped

FLOOR: dict[tuple[str, str], str] = {
    ("idle", "voice"): "maybe",
    ("idle", "quiet"): "idle",
    ("maybe", "voice"): "maybe",
    ("maybe", "quiet"): "maybe",
    ("maybe", "enough"): "speaking",
    ("maybe", "nothing"): "idle",
    ("speaking", "voice"): "speaking",
    ("speaking", "quiet"): "speaking",
    ("speaking", "ended"): "idle",
}


@dataclass(slots=True)
class FloorSettings:
    """Milliseconds, except ``threshold`` (0..1)."""

    threshold: float = 0.5
    silence_ms: int = 500
    prefix_ms: int = 300
    start_ms: int = START_MS
    interrupt_ms: int = INTERRUPT_MS


class Floor:
    """Feed ``frame`` for each voice frame in order, ``starved`` when no audio came for a while.

    ``trace``: gets (event, state, position) of each transition when set; for looking, never for deciding.
    """

    __slots__ = (
        "_first",
        "_heard",
        "_holding",
        "_last",
        "_voice",
        "is_playing",
        "settings",
        "state",
        "trace",
    )

    def __init__(self, settings: FloorSettings, trace: Callable[[str, str, int], None] | None = None) -> None:
        self.settings = settings
        self.trace = trace
        self.state = "idle"
        self.is_playing = False
        self._first = self._last = self._voice = self._heard = 0
        self._holding = False

    def reset(self) -> tuple[FloorEvent, ...]:
        """Forget any speech in progress; nothing is said about it, but audio that was held for it goes on."""
        self.state = "idle"
        return self._unhold()

    def frame(self, start: int, end: int, probability: float) -> tuple[FloorEvent, ...]:
        """One voice frame: samples [start, end) with the chance that it is speech."""
        settings = self.settings
        limit = settings.threshold - (HYSTERESIS if self.state != "idle" else 0.0)
        self._heard = end
        if probability >= limit:
            return self._voiced(start, end)
        return self._quiet(end)

    def _voiced(self, start: int, end: int) -> tuple[FloorEvent, ...]:
        if self.state == "idle":
            self._first, self._voice = start, 0
        self._go("voice", end)
        self._last = end
        self._voice += end - start
        if self.state != "maybe":
            return ()
        needed = self.settings.interrupt_ms if self.is_playing else self.settings.start_ms
        if self._voice >= samples_of_ms(needed):
            self._go("enough", end)
            self._holding = False
            return (Started(self.padded_start),)
        if self.is_playing and not self._holding:
            self._holding = True
            return (Hold(),)
        return ()

    def _quiet(self, end: int) -> tuple[FloorEvent, ...]:
        self._go("quiet", end)
        silence = end - self._last
        if self.state == "maybe" and silence >= samples_of_ms(GIVE_UP_MS):
            self._go("nothing", end)
            return self._unhold()
        if self.state == "speaking" and silence >= samples_of_ms(self.settings.silence_ms):
            return self._end()
        return ()

    def starved(self) -> tuple[FloorEvent, ...]:
        """No audio for ``silence_ms + STARVED_MS``: whoever was speaking has stopped (muted, or a dead line)."""
        if self.state == "maybe":
            self._go("nothing", self._heard)
            return self._unhold()
        return self._end() if self.state == "speaking" else ()

    def _end(self) -> tuple[FloorEvent, ...]:
        self._go("ended", self._last)
        return (Stopped(self.padded_start, self._last),)

    def _unhold(self) -> tuple[FloorEvent, ...]:
        if not self._holding:
            return ()
        self._holding = False
        return (Release(),)

    def _go(self, event: str, position: int) -> None:
        before, self.state = self.state, FLOOR[self.state, event]
        if self.trace is not None and before != self.state:
            self.trace(event, self.state, position)

    @property
    def padded_start(self) -> int:
        """Where the turn begins: its first voice, less the padding that keeps soft onsets."""
        return max(0, self._first - samples_of_ms(self.settings.prefix_ms))

    @property
    def undecided_from(self) -> int | None:
        """First sample of a sound not yet decided on, or None."""
        return self.padded_start if self.state == "maybe" else None
