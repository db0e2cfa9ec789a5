"""The user's side of the upstream link: what of the audio was sent; speech, turns and their text down.

The provider detects turns and names their items; the session names them too, a step later. ``adopt`` joins
the two. Positions are samples appended to the link; the provider counts milliseconds of what reached it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openline.adapters.link_openai_realtime.items import Command, Conversation
from openline.core.audio import BYTES_PER_MS, RATE, samples_of
from openline.core.model import AudioFormat, Item
from openline.ports import LinkSink
from openline.types import ItemId
from openline.wire import upstream
from openline.wire.items import JsonObject

COMMIT_MIN_SAMPLES = RATE // 10
"""A provider refuses to commit less than 100 ms (B.7)."""
CHUNK_MS = 1_000
"""A frame when audio is given again at once."""
TURNS_KEPT = 64
"""Turns whose text may still come."""


@dataclass(slots=True)
class _Spoken:
    """One stretch of speech. ``ours`` once the session has named its item."""

    theirs: str
    start: int
    end: int
    is_stopped: bool = False
    is_committed: bool = False
    partial: str = ""
    text: str | None = None
    failed: str = ""
    ours: ItemId | None = None


class Turns:
    """``send`` writes a frame; ``command`` an event with an id of its own."""

    __slots__ = (
        "_command",
        "_commits",
        "_committed",
        "_conversation",
        "_kind",
        "_last_end",
        "_offset",
        "_open",
        "_send",
        "_sink",
        "_spoken",
        "_unnamed",
        "position",
    )

    def __init__(
        self,
        send: Callable[[bytes], None],
        command: Command,
        sink: LinkSink,
        conversation: Conversation,
        kind: upstream.Kind = "realtime",
    ) -> None:
        self._kind = kind
        self._send = send
        self._command = command
        self._sink = sink
        self._conversation = conversation
        self._spoken: dict[str, _Spoken] = {}
        self._open: _Spoken | None = None
        self._unnamed: list[_Spoken] = []
        self._commits: list[tuple[ItemId, int, int]] = []
        self._last_end = 0
        self._offset = 0
        """Link position minus the provider's, in samples."""
        self.position = 0
        """Samples appended to the link so far; who sends audio to the provider moves it on."""
        self._committed = 0
        """Where the last turn ended that was committed, or where this socket took over."""

    @property
    def uncommitted(self) -> int:
        """Samples appended to this socket since the last turn."""
        return self.position - self._committed

    @property
    def last_end(self) -> int:
        """Where the last speech ended that the provider told of, or where this socket took over."""
        return self._last_end

    # -- audio up

    def begin_at(self, position: int, replayed: int) -> None:
        """This socket takes over at ``position``; its last ``replayed`` samples are sent to it again first."""
        self.position = self._last_end = self._committed = position
        self._offset = position - replayed

    def skip(self, samples: int) -> None:
        """Audio that was not sent: the provider's clock falls behind ours by so much."""
        self.position += samples
        self._committed += samples
        self._offset += samples

    def filled(self, samples: int) -> None:
        """Audio that only the provider has: its clock runs ahead of ours by so much."""
        self._offset -= samples

    def commit(self, item_id: ItemId, start: int, end: int) -> str:
        """The client ended its turn. The event id, by which an error names it."""
        self._commits.append((item_id, start, end))
        self._committed = self.position
        return self._command("input_audio_buffer.commit")

    def clear(self) -> None:
        self._open = None
        self._committed = self.position
        self._last_end = self.position
        self._command("input_audio_buffer.clear")

    def recognize(
        self, item_id: ItemId, name: AudioFormat, data: bytes, detection: JsonObject | None
    ) -> bool:
        """Hear again what an earlier link was told: appended and committed at once, with detection off.

        ``data`` in the provider's format, which is ``name``. False while somebody speaks (it would be mixed with it)
        and for less than a provider may commit.
        """
        samples = samples_of(name, data)
        if self._open is not None or samples < COMMIT_MIN_SAMPLES:
            return False
        if detection is not None:
            self._detect(None)
        self._command("input_audio_buffer.clear")
        size = CHUNK_MS * BYTES_PER_MS[name]
        for at in range(0, len(data), size):
            self._send(upstream.append_audio(data[at : at + size]))
        self._offset -= samples
        self.commit(item_id, self.position, self.position)
        if detection is not None:
            self._detect(detection)
        return True

    def _detect(self, detection: JsonObject | None) -> None:
        session = {"type": self._kind, "audio": {"input": {"turn_detection": detection}}}
        self._command("session.update", session=session)

    # -- what the provider hears

    def _at(self, ms: float) -> int:
        return int(ms * RATE / 1000) + self._offset

    def started(self, event: upstream.SpeechStarted) -> None:
        if event.item_id in self._spoken:
            return
        start = max(self._last_end, min(self._at(event.audio_start_ms), self.position))
        spoken = self._begin(event.item_id, start)
        self._open = spoken
        self._sink.speech_started(start)

    def _begin(self, theirs: str, start: int) -> _Spoken:
        spoken = self._spoken[theirs] = _Spoken(theirs, start, start)
        while len(self._spoken) > TURNS_KEPT:
            del self._spoken[next(iter(self._spoken))]
        return spoken

    def stopped(self, event: upstream.SpeechStopped) -> None:
        spoken = self._spoken.get(event.item_id)
        if spoken is not None and not spoken.is_stopped:
            self._stop(spoken, self._at(event.audio_end_ms))

    def _stop(self, spoken: _Spoken, end: int) -> None:
        # A server that does not count its audio says 0: then the turn ends where we are.
        spoken.end = end if spoken.start < end <= self.position else self.position
        spoken.is_stopped = True
        self._sink.speech_stopped(spoken.end)

    def committed(self, event: upstream.Committed) -> None:
        spoken = self._spoken.get(event.item_id)
        if spoken is not None and spoken.is_committed:
            return
        if self._commits and (spoken is None or not spoken.is_stopped):
            self._commit_of_ours(event.item_id, spoken)
            return
        if spoken is None:  # A server that detects turns and does not say when they began.
            spoken = self._begin(event.item_id, self._last_end)
            self._sink.speech_started(spoken.start)
        if not spoken.is_stopped:
            self._stop(spoken, self.position)
        self._end(spoken)
        self._unnamed.append(spoken)
        self._sink.turn_committed(spoken.start, spoken.end)

    def _commit_of_ours(self, theirs: str, spoken: _Spoken | None) -> None:
        ours, start, end = self._commits.pop(0)
        spoken = spoken or self._begin(theirs, start)
        spoken.start, spoken.end, spoken.is_stopped = start, end, True
        self._end(spoken)
        self._name(spoken, ours)

    def _end(self, spoken: _Spoken) -> None:
        spoken.is_committed = True
        self._last_end = max(self._last_end, spoken.end)
        if self._open is spoken:
            self._open = None

    def commit_failed(self, code: str) -> None:
        """The provider refused the oldest commit of ours."""
        if self._commits:
            ours, _, _ = self._commits.pop(0)
            self._sink.turn_failed(ours, code)

    # -- names

    def adopt(self, item: Item) -> bool:
        """The session's item for a turn that was reported: the provider has it already. False: it is none."""
        part = item.content[0] if item.content else None
        audio = part.audio if part is not None and part.text is None else None
        if audio is None or not self._unnamed or item.id in self._conversation.known:
            return False
        length = audio.end - audio.start
        fitting = (spoken for spoken in self._unnamed if spoken.end - spoken.start == length)
        spoken = next(fitting, self._unnamed[0])
        while self._unnamed[0] is not spoken:
            # The session did not take this turn; then the model must not know it either.
            self._command("conversation.item.delete", item_id=self._unnamed.pop(0).theirs)
        self._unnamed.pop(0)
        self._name(spoken, item.id)
        return True

    def _name(self, spoken: _Spoken, ours: ItemId) -> None:
        spoken.ours = ours
        self._conversation.bind(ours, spoken.theirs)
        if spoken.partial and spoken.text is None and not spoken.failed:
            self._sink.transcript_partial(ours, spoken.partial)
        self._tell(spoken)

    # -- text

    def transcript_delta(self, event: upstream.TranscriptionDelta) -> None:
        spoken = self._spoken.get(event.item_id)
        if spoken is not None and event.delta:
            spoken.partial += event.delta
            if spoken is self._open:
                self._sink.user_partial(spoken.partial)
            elif spoken.ours is not None:
                self._sink.transcript_partial(spoken.ours, spoken.partial)

    def transcribed(self, event: upstream.TranscriptionCompleted) -> None:
        spoken = self._spoken.get(event.item_id)
        if spoken is not None and spoken.text is None:
            spoken.text = event.transcript or ""
            self._tell(spoken)

    def transcription_failed(self, event: upstream.TranscriptionFailed) -> None:
        spoken = self._spoken.get(event.item_id)
        if spoken is not None and spoken.text is None:
            spoken.failed = upstream.word(event.error.code if event.error else None)
            self._tell(spoken)

    def _tell(self, spoken: _Spoken) -> None:
        if spoken.ours is None or (spoken.text is None and not spoken.failed):
            return
        self._spoken.pop(spoken.theirs, None)
        if spoken.text is not None:
            self._sink.turn_final(spoken.ours, spoken.text, None, spoken.start, spoken.end)
        else:
            self._sink.turn_failed(spoken.ours, spoken.failed)

    # -- quiet

    @property
    def is_speaking(self) -> bool:
        return self._open is not None

    @property
    def is_settled(self) -> bool:
        """Nobody speaks, and every turn has its name and its text."""
        waits = any(spoken.is_committed for spoken in self._spoken.values())
        return self._open is None and not self._commits and not self._unnamed and not waits
