"""Output audio on its way to a listener: paced release, the playout clock, and what was heard.

One playout per session. Frames of one item keep their order (audio, its transcript, its end); nothing
else of the session waits for them. The tape is the line of all spoken audio in order; positions on it
are milliseconds. ``released`` is how far it was sent, ``played`` how far the listener's clock must have
come: audio cannot be heard before it was sent nor faster than real time.

Not thread-safe; everything runs on the session's loop. After a crash the tape is gone; what was heard of
it is in the checkpoints that ``on_progress`` led to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openline.core.audio import BYTES_PER_MS
from openline.core.model import Cut, HeardSource
from openline.runtime.spool import Sound, SpoolDesk
from openline.runtime.track import Track
from openline.types import ItemId, ResponseId

ASSUMED_MARGIN_MS = 500
"""A lost listener is assumed to have heard what was released minus this (DESIGN §4)."""
PROGRESS_MS = 1_000
"""Released audio between two checkpoints: what a crash may forget of a reply."""
TAPE_MAX_MS = 300_000
"""Audio waiting for release, at most: five minutes (DESIGN §4). More is dropped, counted and said."""
DROPPED_EVERY_MS = 10_000
"""Dropped audio is said in sums of this, or at the end of its item: it is one fact each time."""
KEEP_MS = ASSUMED_MARGIN_MS + 100
"""Played audio kept for a listener that comes back after a drop: what it is assumed not to have heard, and a
chunk more. Of what is recorded only its place is kept, of other audio the bytes: 48 kB for each second."""
CHUNK_MAX_MS = 200
"""A longer piece is cut: a model may send a second at once, and what was released cannot be held back."""
PLAYED_EVERY_MS = 200
"""How often played audio is put away while nothing ends: one timer for several chunks."""


@dataclass(slots=True, kw_only=True)
class _Chunk(Sound):
    """A piece of the tape. ``at``: its start on the tape once released; -1 before. ``recorded``: where it lies on the
    recording (samples), if that holds it and memory does not."""

    ms: float
    item: Track
    at: float = -1.0
    recorded: int = -1


@dataclass(slots=True)
class PlayoutHooks:
    """Where the playout's results go. All are called on the loop, in tape order."""

    text: Callable[[Track, str], None]
    audio: Callable[[Track, bytes], None]
    finished: Callable[[Track], None]
    released: Callable[[ResponseId], None]
    progress: Callable[[Track], None]
    heard: Callable[[Track, Cut], None]
    played: Callable[[Track, bytes, float], int | None]
    """Audio whose time has come, with its age in ms (how long ago it began to play): for the recording. Its first
    sample there, if it can be had from there again as it is; None: what is kept of it is kept in memory."""
    recall: Callable[[int, int, Callable[[bytes], None]], None]
    """Read [start, end) of the recording, in samples; the function is called with it on the loop, later, with b"" if
    it is not to be had."""
    dropped: Callable[[int], None]


_Entry = _Chunk | tuple[Track, str] | Track | ResponseId


class Playout:
    """``clock``: monotonic seconds. ``lead_ms``: how far release may run ahead; None: not paced.

    ``desk`` None: all audio waits in memory.
    """

    __slots__ = (
        *(
            "_anchor",
            "_clock",
            "_dropped_ms",
            "_due",
            "_held_at",
            "_hooks",
            "_is_releasing",
            "_is_taken",
            "_kept",
            "_loop",
        ),
        *(
            "_queue",
            "_queued_ms",
            "_released",
            "_sent",
            "_spool",
            "_timer",
            "_tracks",
            "is_listening",
            "lead_ms",
        ),
    )

    def __init__(
        self,
        hooks: PlayoutHooks,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        desk: SpoolDesk | None = None,
    ) -> None:
        self._hooks = hooks
        self._clock = clock
        self._loop = loop
        # Lists, though they are read from the front: mostly empty or short, and an empty deque is 760 bytes.
        self._queue: list[_Entry] = []
        self._sent: list[_Chunk] = []
        self._kept: list[_Chunk] = []
        self._tracks: dict[ItemId, Track] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._anchor: tuple[float, float] = (0.0, 0.0)
        self._held_at: float | None = None
        self._released = 0.0
        self._queued_ms = 0.0
        self._dropped_ms = 0.0
        self._is_releasing = False
        self._is_taken = False
        """What was put away last is on the recording, and memory has forgotten it."""
        self._spool = desk.spool(self._release) if desk is not None else None
        self.lead_ms: int | None = 500
        self.is_listening = True

    # -- what comes in

    def start(self, track: Track) -> None:
        self._tracks[track.item] = track

    def add_text(self, item: ItemId, text: str) -> None:
        track = self._tracks.get(item)
        if track is None:
            return
        track.text += text
        if self._queue or self._is_releasing or not self.is_listening:
            self._queue.append((track, text))
            self._release()
        else:  # nothing is before it, and text waits for no clock
            track.shown += text
            self._hooks.text(track, text)

    def track(self, item: ItemId) -> Track | None:
        return self._tracks.get(item)

    def add_audio(self, item: ItemId, pcm: bytes, text_end: int) -> None:
        """``pcm`` in the track's format."""
        track = self._tracks.get(item)
        if track is not None:
            self.put_audio(track, pcm, text_end)

    def put_audio(self, track: Track, pcm: bytes, text_end: int) -> None:
        """``add_audio`` for a track of this tape."""
        bytes_per_ms = BYTES_PER_MS[track.format]
        size = CHUNK_MAX_MS * bytes_per_ms
        if len(pcm) <= size:
            now, ms = self._clock(), len(pcm) / bytes_per_ms
            if self._leaves_at_once(ms, now):
                self._pass_through(track, pcm, ms, text_end, now)
                return
            self._add_chunk(track, pcm)
        else:
            for start in range(0, len(pcm), size):
                self._add_chunk(track, pcm[start : start + size])
        if text_end:
            track.marks.add(track.audio_ms, text_end)
        self._release()

    def _leaves_at_once(self, ms: float, now: float) -> bool:
        """A chunk so long may go out now: the way of nearly all audio of a model that speaks in real
        time. What follows then is what ``_add_chunk`` and ``_release`` would do, without queue and spool."""
        if self._queue or self._is_releasing or not self.is_listening:
            return False
        if self.lead_ms is None:
            return True
        if self._held_at is not None:
            return False
        lead = ms - self.lead_ms
        ahead = self._released + lead if lead < 0.0 else self._released
        return self._played_at(now) >= ahead - 0.001

    def _pass_through(self, track: Track, pcm: bytes, ms: float, text_end: int, now: float) -> None:
        chunk = _Chunk(pcm, len(pcm), ms=ms, item=track)
        track.audio_ms += ms
        if text_end:
            track.marks.add(track.audio_ms, text_end)
        self._is_releasing = True
        try:
            self._put_out(chunk, pcm, now)
        finally:
            self._is_releasing = False
        if self._queue or self._timer is None:
            self._release()

    def _add_chunk(self, track: Track, pcm: bytes) -> None:
        ms = len(pcm) / track.bytes_per_ms
        chunk = _Chunk(pcm, len(pcm), ms=ms, item=track)
        is_full = self._queued_ms + ms > TAPE_MAX_MS
        if is_full or (self._spool is not None and not self._spool.added(chunk)):
            self._dropped_ms += ms
            if self._dropped_ms >= DROPPED_EVERY_MS:
                self._say_dropped()
            return
        track.audio_ms += ms
        self._queued_ms += ms
        self._queue.append(chunk)

    def _say_dropped(self) -> None:
        if self._dropped_ms:
            dropped, self._dropped_ms = int(self._dropped_ms), 0.0
            self._hooks.dropped(dropped)

    def finish(self, item: ItemId) -> None:
        track = self._tracks.get(item)
        if track is not None:
            self._say_dropped()
            self._queue.append(track)
            self._release()

    @property
    def is_all_released(self) -> bool:
        """Nothing waits here, for the clock, the disk or a listener."""
        return self.is_listening and not self._queue and not self._is_releasing

    def finish_response(self, response: ResponseId) -> None:
        """Nothing more will come for it: ``released`` is called when all of it has left."""
        self._queue.append(response)
        self._release()

    # -- what the listener does

    def hold(self, is_held: bool) -> None:
        """Stop the tape (a possible interruption, a lost listener), or let it go on."""
        if is_held and self._held_at is None:
            self._held_at = self._played_at(self._clock())
        elif not is_held and self._held_at is not None:
            # The listener played on what it had: the clock was not held, only the release.
            self._held_at = None
            self._release()

    def listen(self, *, lead_ms: int | None) -> None:
        """A listener is there: the tape goes on from where ``unlisten`` left it."""
        if self.lead_ms is None and lead_ms is not None:
            # What ran ahead unpaced was for somebody else, or for nobody: this listener waits for none of it.
            self._anchor = (self._released, self._clock())
        self.lead_ms = lead_ms
        self.is_listening = True
        self._release()

    def unlisten(self, *, keep: bool) -> tuple[Cut, ...]:
        """The listener is gone; what it heard. ``keep``: hold the tape for its return; else play to nobody."""
        cuts = self.cuts("assumed")
        self._settle_clock()
        self.is_listening = not keep
        if keep:
            # Now and not at the return: a client that comes back is told where its audio goes on.
            self._rewind()
            for track in self._tracks.values():
                track.resumed_ms = int(track.released_ms)
        else:
            self.lead_ms = None
            self._release()
        return cuts

    def is_on_tape(self, item: ItemId) -> bool:
        return item in self._tracks

    def report(self, item: ItemId, audio_end_ms: int) -> Cut | None:
        """The listener says how much of an item it has played; a Cut when that ended the item."""
        track = self._tracks.get(item)
        if track is None:
            return None
        track.reported_ms = max(0, min(audio_end_ms, int(track.released_ms)))
        if track.is_finished and track.reported_ms >= int(track.audio_ms):
            return self._end_of(track, "reported")
        return None

    def clear(self, response: ResponseId) -> None:
        """Drop what of a response was not released and forget its tracks; nothing of it comes after this."""
        self._queue = [entry for entry in self._queue if not self._belongs(entry, response)]
        rest = [entry for entry in self._queue if isinstance(entry, _Chunk)]
        self._queued_ms = sum(chunk.ms for chunk in rest)
        if self._spool is not None:
            near = sum(chunk.size for chunk in rest if not chunk.is_far)
            self._spool.forget(
                lambda sound: isinstance(sound, _Chunk) and self._belongs(sound, response), near
            )
        self._settle_clock()
        self._write_played(self._clock())
        self._sent = [chunk for chunk in self._sent if chunk.item.response != response]
        self._cut_back()
        self._kept.clear()
        for item in [item for item, track in self._tracks.items() if track.response == response]:
            del self._tracks[item]
        self._release()

    def _cut_back(self) -> None:
        """What was sent and cleared will not be played: the next audio begins where playing is now."""
        end = self._sent[-1].at + self._sent[-1].ms if self._sent else 0.0
        self._released = max(end, min(self._anchor[0], self._released))

    def drop(self) -> None:
        """Forget everything: the call is over. What was played is recorded first."""
        self._settle_clock()
        self._write_played(self._clock())
        self._queue.clear()
        self._tracks.clear()
        self._sent.clear()
        self._cut_back()
        self._kept.clear()
        if self._spool is not None:
            self._spool.close()
        self._queued_ms = 0.0
        self._held_at = None
        self.is_listening = True
        self._arm()

    # -- what is known

    def cuts(self, source: HeardSource = "paced") -> tuple[Cut, ...]:
        """For every item that is not fully played: its text, its audio and what was heard of it now."""
        now = self._clock()
        return tuple(self._cut(track, source, now) for track in self._tracks.values())

    def cut_of(self, track: Track) -> Cut:
        return self._cut(track, "paced", self._clock())

    def _cut(self, track: Track, source: HeardSource, now: float) -> Cut:
        heard = self._heard(track, source, now)
        if track.reported_ms is not None and track.reported_ms >= heard - ASSUMED_MARGIN_MS:
            heard, source = float(track.reported_ms), "reported"
        return Cut(
            track.item, track.text, int(track.audio_ms), int(heard), source, track.marks.text_end_at(heard)
        )

    def _heard(self, track: Track, source: HeardSource, now: float) -> float:
        if track.start < 0:
            return 0.0
        limit = self._played_at(now)
        if source == "assumed":
            limit = min(limit, self._released - ASSUMED_MARGIN_MS)
        return max(0.0, min(limit - track.start, track.released_ms))

    def tracks(self) -> tuple[Track, ...]:
        """Items that are being made or played."""
        return tuple(self._tracks.values())

    @property
    def is_playing(self) -> bool:
        """Something is unreleased or unplayed."""
        return bool(self._queue) or bool(self._tracks)

    @property
    def queued_ms(self) -> int:
        return int(self._queued_ms)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write_played(self._clock())
        self._queue.clear()
        self._tracks.clear()
        if self._spool is not None:
            self._spool.close()

    # -- the tape

    def _played_at(self, now: float) -> float:
        position, since = self._anchor
        played = position + (now - since) * 1000
        return played if played < self._released else self._released

    def _settle_clock(self) -> None:
        now = self._clock()
        self._anchor = (self._played_at(now), now)

    def _release(self) -> None:
        """Send what may be sent now, then set the timer for the next moment that matters."""
        if self._is_releasing:
            return
        self._is_releasing = True
        try:
            while self._queue and self._may_release():
                self._release_one(self._queue.pop(0))
        finally:
            self._is_releasing = False
        self._arm()

    def _may_release(self) -> bool:
        if not self.is_listening:
            return False
        first = self._queue[0]
        if not isinstance(first, _Chunk):
            return True
        if first.pcm is None:
            return False  # On its way from the disk; the spool calls when it is there.
        if self.lead_ms is None:
            return True
        if self._held_at is not None:
            return False
        return self._played_at(self._clock()) >= self._release_position(first) - 0.001

    def _release_position(self, chunk: _Chunk) -> float:
        """How far playing must have come for ``chunk`` to go out: then not more than the lead is ahead."""
        assert self.lead_ms is not None
        return self._released + min(0.0, chunk.ms - self.lead_ms)

    def _release_one(self, entry: _Entry) -> None:
        if isinstance(entry, _Chunk):
            self._release_audio(entry)
        elif isinstance(entry, tuple):
            entry[0].shown += entry[1]
            self._hooks.text(*entry)
        elif isinstance(entry, Track):
            entry.is_finished = True
            self._hooks.finished(entry)
            if not entry.is_spoken or entry.audio_ms == 0:
                self._tracks.pop(entry.item, None)
        else:
            self._hooks.released(entry)

    def _release_audio(self, chunk: _Chunk) -> None:
        assert chunk.pcm is not None
        self._queued_ms -= chunk.ms
        self._put_out(chunk, chunk.pcm, self._clock())
        if self._spool is not None:
            self._spool.taken(chunk)

    def _put_out(self, chunk: _Chunk, pcm: bytes, now: float) -> None:
        track = chunk.item
        played = self._played_at(now)
        if played >= self._released:
            self._anchor = (self._released, now)
        chunk.at = self._released
        if track.start < 0:
            track.start = chunk.at
        self._released += chunk.ms
        track.released_ms += chunk.ms
        self._sent.append(chunk)
        self._hooks.audio(track, pcm)
        if track.released_ms - track.checkpoint_ms >= PROGRESS_MS:
            track.checkpoint_ms = track.released_ms
            self._hooks.progress(track)

    def _arm(self) -> None:
        """One timer for what is due first: the next release, the end of an item that is all there, or putting away
        what was played: in batches, or at once where it then leaves memory.

        A timer that is early only looks and arms again, so one that runs is left alone unless it is late:
        a chunk comes every 20–40 ms, and cancelling a timer each time costs more than the chunk.
        """
        due: float | None = None
        position, since = self._anchor
        if self._sent and self.is_listening:
            due = self._clock() + PLAYED_EVERY_MS / 1000
            last = self._sent[-1]
            if last.item.is_finished or self._is_taken:
                due = min(due, since + (last.at + last.ms - position) / 1000)
        first = self._queue[0] if self._queue and self.is_listening else None
        waits = isinstance(first, _Chunk) and first.pcm is not None and self.lead_ms is not None
        if waits and self._held_at is None:
            assert isinstance(first, _Chunk)
            release = since + (self._release_position(first) - position) / 1000
            due = release if due is None else min(due, release)
        if due is None or (self._timer is not None and self._due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(max(0.001, due - self._clock()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._write_played(self._clock())
        self._release()

    def _write_played(self, now: float) -> None:
        """Chunks whose time is over: record them, and end the items they end."""
        played = self._played_at(now)
        while self._sent and self._sent[0].at + self._sent[0].ms <= played + 0.5:
            chunk = self._sent.pop(0)
            self._kept.append(chunk)
            assert chunk.pcm is not None
            track = chunk.item
            recorded = self._hooks.played(track, chunk.pcm, played - chunk.at)
            self._is_taken = recorded is not None
            if recorded is not None:
                chunk.recorded, chunk.pcm = recorded, None
            is_last = track.is_finished and chunk.at + chunk.ms >= track.start + track.audio_ms - 0.5
            if is_last and track.item in self._tracks:
                self._hooks.heard(track, self._end_of(track, "paced"))
        # What is too old, or of an item that has ended: nobody comes back to either.
        kept = self._kept
        while kept and (kept[0].at < played - KEEP_MS or kept[0].item.item not in self._tracks):
            del kept[0]

    def _end_of(self, track: Track, source: HeardSource) -> Cut:
        self._tracks.pop(track.item, None)
        audio_ms = int(track.audio_ms)
        return Cut(track.item, track.text, audio_ms, audio_ms, source, len(track.text))

    def _rewind(self) -> None:
        """Put back what was released but cannot have been heard, from the assumed position on."""
        heard_to = min(self._anchor[0], self._released - ASSUMED_MARGIN_MS)
        again: list[_Chunk] = []
        for store in (self._sent, self._kept):
            while store and store[-1].at + store[-1].ms > heard_to and store[-1].item.item in self._tracks:
                again.append(store.pop())
        if not again:
            return
        for chunk in again:  # newest first: each goes to the very front
            self._released = chunk.at
            chunk.item.released_ms -= chunk.ms
            self._queued_ms += chunk.ms
            if self._spool is not None:
                self._spool.put_back(chunk)
        self._queue[:0] = reversed(again)
        self._anchor = (self._released, self._clock())
        if recorded := [chunk for chunk in again if chunk.pcm is None]:
            self._recall(recorded)

    def _recall(self, chunks: Sequence[_Chunk]) -> None:
        """Have what was put on the recording in memory again. Until then the tape waits for it."""
        start = min(chunk.recorded for chunk in chunks)

        def came(pcm: bytes) -> None:
            for chunk in chunks:
                at = 2 * (chunk.recorded - start)
                # What cannot be read is silence: the call goes on.
                chunk.pcm = pcm[at : at + chunk.size] or bytes(chunk.size)
            self._release()

        self._hooks.recall(start, max(chunk.recorded + chunk.size // 2 for chunk in chunks), came)

    @staticmethod
    def _belongs(entry: _Entry, response: ResponseId) -> bool:
        if isinstance(entry, _Chunk):
            return entry.item.response == response
        if isinstance(entry, tuple):
            return entry[0].response == response
        if isinstance(entry, Track):
            return entry.response == response
        return entry == response
