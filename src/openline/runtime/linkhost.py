"""One model link of one session: opens it, gives it effects, turns what it says into inputs.

The host *is* the link's sink. It carries the link's epoch, so that whatever a replaced link still says
is ignored here or by the core; late and unknown content is counted, never guessed at.
"""

from __future__ import annotations

import asyncio
import logging
import random
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from openline.core import inputs as i
from openline.core.audio import SAMPLES_PER_MS
from openline.core.model import AudioFormat, AudioRange, Item, Problem, SessionConfig, Usage
from openline.errors import LinkError, LinkRejected, OpenlineError, for_log
from openline.ports import LinkFactory, ModelLink, ReasoningDelta
from openline.runtime.codecs import Encoded
from openline.types import CallId, ItemId, ResponseId

if TYPE_CHECKING:
    from openline.runtime.driver import SessionDriver

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 15.0
"""A link that is not open by then counts as lost (TLS and a cold model included)."""
GAPS_MAX = 4_096
HELD_MAX_MS = 30_000
"""Caller audio kept for a link that is still opening (DESIGN §5: at most 30 s); the oldest goes first. An utterance
that is longer is not given to a new link again either."""
PRE_ROLL_MS = 300
"""Heard again from so long before speech began (DESIGN §5)."""
DETECT_MS = 700
"""A provider may need so long to say that somebody speaks: what it said meanwhile (the words of a reply) does not
show that it heard them. A guess: 300 to 400 ms are usual, and the line."""
READ_TIMEOUT_S = 5.0
"""A recording that is not read by then is not waited for: who speaks now is worth more than what was said."""
REPLAY_BYTES = 48_000
"""A second at a time, so that half a minute does not hold up the loop."""
JITTER = 0.25
"""Share by which a delay may be longer: the links of a node that fell together do not come back together."""


class TrackMap:
    """Between samples appended to a link and samples of the session's track: equal but for silent gaps."""

    __slots__ = ("_links", "_tracks")

    def __init__(self) -> None:
        self._links = array("q", (0,))  # Numbers of a long call with many gaps, at eight bytes each.
        self._tracks = array("q", (0,))

    def gap(self, link: int, track: int) -> None:
        """From link position ``link`` on, audio lies at ``track``."""
        if self._links[-1] == link:
            self._tracks[-1] = track
        elif len(self._links) < GAPS_MAX:
            self._links.append(link)
            self._tracks.append(track)

    def to_track(self, link: int) -> int:
        at = bisect_right(self._links, link) - 1
        return self._tracks[at] + link - self._links[at]

    def start_to_track(self, link: int, padding: int) -> int:
        """Where speech began. A link subtracts ``padding`` samples from where it heard it; if a gap lies within them
        the speech began behind the gap, and what was said before it is not a part of it."""
        at = bisect_right(self._links, link)
        if at < len(self._links) and self._links[at] - link <= padding:
            return self._tracks[at] - (self._links[at] - link)
        return self.to_track(link)

    def to_link(self, track: int) -> int:
        at = max(0, bisect_right(self._tracks, track) - 1)
        position = self._links[at] + track - self._tracks[at]
        return min(position, self._links[at + 1]) if at + 1 < len(self._links) else position


class LinkHost:
    """The live link of a session. ``close`` cuts it off; nothing it says afterwards arrives."""

    __slots__ = (
        *(
            "_behind",
            "_config",
            "_driver",
            "_due",
            "_held",
            "_held_bytes",
            "_is_closed",
            "_is_slow_to_read",
            "_made_at",
            "_next",
            "_next_position",
        ),
        *("_said", "_said_item", "_said_output", "_task", "epoch", "late", "link", "map"),
    )

    def __init__(self, driver: SessionDriver, epoch: int) -> None:
        self._driver = driver
        self.epoch = epoch
        self.link: ModelLink | None = None
        self.map = TrackMap()
        self._next_position = -1
        """Where on the track the next sample lies if no gap comes before it; -1 before the first."""
        self._behind = -1
        """How much further on the track that is than on the link."""
        self._held: deque[tuple[bytes, int, int, Encoded | None]] | None = deque()
        """Audio that waits: until the link is open, and until it was given what goes before. None: nothing waits."""
        self._held_bytes = 0
        self._due: tuple[ItemId, ...] = ()
        """What of earlier audio is still to be recognised. A provider has one buffer, and clears it for that."""
        self._next: Callable[[], object] | None = None
        """What comes after that: to hear again, or to let go what was held."""
        self._config: SessionConfig | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = self._is_slow_to_read = False
        self._made_at = driver.heard_until
        self._said: ResponseId | None = None
        self._said_output = 0
        self._said_item: ItemId | None = None
        """What the last piece of content belonged to; looked up again after each step that changed the state."""
        self.late = 0

    # -- life

    def open(self, factory: LinkFactory, delay_s: float) -> None:
        self._task = asyncio.get_running_loop().create_task(self._open(factory, delay_s))

    async def _open(self, factory: LinkFactory, delay_s: float) -> None:
        if delay_s:
            await asyncio.sleep(delay_s * (1 + JITTER * random.random()))
        state = self._driver.session.state
        try:
            config = self._config = state.config
            self.link = factory(state.session, config)
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self.link.open(self, config, state.conversation())
        except (OpenlineError, OSError, TimeoutError) as error:
            self.lost(error)
        except Exception as error:  # the edge of a task: a broken adapter must not leave the session waiting
            log.exception("link of session %s failed to open", state.session)
            self.lost(error)
        finally:
            self._task = None

    def close(self) -> None:
        """Stop listening now; the link is closed behind."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._driver.link is self:
            self._driver.leave_straight()
        self._driver.playout.hold(False)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        if self.link is not None:
            self._driver.spawn(self.link.close())

    # -- audio in

    @property
    def _appended(self) -> int:
        """Samples given to the link so far."""
        caller = self._driver.caller
        return (self._next_position if caller.straight is None else caller.position) - self._behind

    def in_step(self, position: int) -> None:
        """What went straight to the link ends at ``position`` of the track."""
        self._next_position = position

    def passes(self, name: AudioFormat) -> bool:
        """Whether audio in this format goes to the link as it is, so that nobody need decode it for ``append``."""
        return (
            self._held is None
            and not self._is_closed
            and self.link is not None
            and self.link.input_format == name
        )

    def append(
        self,
        pcm: bytes,
        start: int,
        end: int,
        encoded: Encoded | None = None,
        frame: bytes = b"",
        *,
        is_late: bool = False,
    ) -> None:
        """Caller audio, [start, end) of the track. What is said while the link opens is heard when it has opened.

        ``encoded``: as it came. ``pcm`` may be empty where the link ``passes`` that. ``frame``: the event it came in.
        ``is_late``: it was held, and comes all at once with much else.
        """
        if self._is_closed:
            return
        if self._held is not None:
            self._hold(self._held, (pcm, start, end, encoded))
            return
        link = self.link
        assert link is not None
        if start != self._next_position:
            self._skip_to(start)
        self._next_position = end
        if link.input_format == "pcm":
            if is_late:
                link.replay_audio(pcm)
            else:
                link.append_audio(pcm, frame)
                if encoded is None:  # What comes is PCM16 as it is.
                    self._driver.caller.straight = link.straight
        elif encoded is not None and encoded.format == link.input_format:
            link.append_encoded(encoded.data, end - start, is_replay=is_late)
        else:
            sound = self._driver.codecs.to_link(link.input_format, pcm)
            link.append_encoded(sound, end - start, is_replay=is_late)

    def _skip_to(self, track_position: int) -> None:
        appended = self._appended
        if self.map.to_track(appended) != track_position:
            self.map.gap(appended, track_position)
        self._behind, self._next_position = track_position - appended, track_position

    def _hold(
        self,
        held: deque[tuple[bytes, int, int, Encoded | None]],
        piece: tuple[bytes, int, int, Encoded | None],
    ) -> None:
        held.append(piece)
        self._held_bytes += len(piece[0])
        while self._held_bytes > HELD_MAX_MS * 48:
            self._held_bytes -= len(held.popleft()[0])

    def transcribe(self, item_id: ItemId, audio: AudioRange) -> None:
        """Recognise a committed range: from the live link if it heard it, else from the recording."""
        if self.link is None:
            return
        start, end = self.map.to_link(audio.start), self.map.to_link(audio.end)
        is_here = 0 <= start and end <= self._appended and self.map.to_track(start) == audio.start
        if is_here and self._appended:
            self.link.commit_audio(item_id, start, end)
            return
        if self._held is None:
            self._driver.leave_straight()
            self._held, self._next = deque(), self._release_held
        if item_id not in self._due:
            self._due += (item_id,)
        self._driver.spawn(self._recover(item_id, audio))

    async def _recover(self, item_id: ItemId, audio: AudioRange) -> None:
        try:
            pcm = await self._said_before(audio.start, audio.end)
            if self._is_closed or self.link is None:
                return
            if not pcm or not self.link.recognize(item_id, pcm):
                self.turn_failed(item_id, "audio_not_recorded")
        finally:
            self._due = tuple(due for due in self._due if due != item_id)
            self._go_on()

    async def _said_before(self, start: int, end: int) -> bytes:
        """[start, end) of the caller's track; b"" if it is not to be had, or not soon."""
        if self._is_slow_to_read:
            return b""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await self._driver.caller_audio(start, end)
        except TimeoutError:
            log.warning("session %s: the recording was not read in time", self._driver.session.state.session)
            self._is_slow_to_read = True
            return b""

    def hear_again(self, item_id: ItemId, start: int) -> None:
        """Give this link the utterance that began at track sample ``start`` on an earlier one."""
        self._then(lambda: self._driver.spawn(self._hear_again(item_id, start)))

    def _then(self, do: Callable[[], object]) -> None:
        """``do`` as soon as nothing of earlier audio is due."""
        self._next = do
        self._go_on()

    def _go_on(self) -> None:
        if self._next is not None and not self._due and not self._is_closed:
            do, self._next = self._next, None
            do()

    async def _hear_again(self, item_id: ItemId | None, start: int) -> None:
        """Without ``item_id``: nobody was known to speak, but what came last may never have reached the model."""
        pre_roll, longest = PRE_ROLL_MS * SAMPLES_PER_MS, HELD_MAX_MS * SAMPLES_PER_MS
        end = self._held[0][1] if self._held else self._driver.heard_until
        begin = max(0, start - pre_roll)
        if item_id is None:
            begin = max(
                self._driver.kept_from,
                self._driver.buffer_start,
                start - DETECT_MS * SAMPLES_PER_MS,
                self._driver.heard_until - longest,
            )
        is_short = self._driver.heard_until - begin <= longest + pre_roll
        pcm = await self._said_before(begin, end) if is_short and begin < end else b""
        for at in range(0, len(pcm), REPLAY_BYTES):
            if self._is_closed or self.link is None:
                return
            piece = pcm[at : at + REPLAY_BYTES]
            self._skip_to(begin + at // 2)
            self._next_position += len(piece) // 2
            if self.link.input_format == "pcm":
                self.link.replay_audio(piece)
            else:
                encoded = self._driver.codecs.to_link(self.link.input_format, piece)
                self.link.append_encoded(encoded, len(piece) // 2, is_replay=True)
            await asyncio.sleep(0)
        if not self._is_closed:
            # A filter's rest: what the caller says now may go by as it is, and would cut it off.
            rest = self._driver.codecs.last_to_link()
            if rest and self.link is not None and self.link.input_format != "pcm":
                self.link.append_encoded(rest, 0, is_replay=True)
            self._driver.unheard_from = None
            self._then(self._release_held)
            if not pcm and item_id is not None:
                self.turn_failed(item_id, "audio_not_kept")

    def _release_held(self) -> None:
        held, self._held, self._held_bytes = self._held, None, 0
        for piece in held or ():
            self.append(*piece, is_late=True)

    # -- the sink: the link's life

    def opened(self) -> None:
        if not self._is_closed:
            config = self._driver.session.state.config
            if self.link is not None and self._config is not None and config != self._config:
                self.link.update(config)  # changed while the link was opening
            hears = self.link is not None and self.link.hears
            model = config.model
            self._driver.offer(i.LinkOpened(self.epoch, model, hears))
            state, unheard_from = self._driver.session.state, self._driver.unheard_from
            self._due = state.to_recognize
            if state.speaks_unheard:
                return  # What was said before goes first (``hear_again``).
            if unheard_from is None or config.turn_detection is None:
                self._then(self._release_held)
            else:
                self._then(lambda: self._driver.spawn(self._hear_again(None, unheard_from)))

    def lost(self, error: Exception) -> None:
        if self._is_closed:
            return
        code = error.code if isinstance(error, OpenlineError) else "link_unavailable"
        log.warning(
            "link of session %s lost: %s (%s)", self._driver.session.state.session, code, for_log(error)
        )
        cuts = self._driver.playout.cuts()
        permanent = isinstance(error, LinkRejected)
        cause = error.cause if isinstance(error, LinkError) else ""
        self._note_unheard()
        self.close()
        self._driver.offer(i.LinkLost(self.epoch, code, permanent, cuts, cause))

    def _note_unheard(self) -> None:
        """From where on the caller's audio may have reached no model: the next link is given it again."""
        if self._held is not None or self.link is None:
            begin = self._made_at
        else:
            begin = self.map.to_track(max(0, self._appended - self.link.unconfirmed()))
        known = self._driver.unheard_from
        self._driver.unheard_from = begin if known is None else min(known, begin)

    def renewed(self, why: str) -> None:
        self._offer(i.LinkRenewed(self.epoch, why))

    # -- the sink: the user's side

    def speech_started(self, start: int) -> None:
        if not self._is_closed:
            cuts = self._driver.playout.cuts()
            detection = self._driver.session.state.config.turn_detection
            padding = detection.prefix_padding_ms if detection is not None else 0
            begin = self.map.start_to_track(start, padding * SAMPLES_PER_MS)
            self._driver.offer(i.SpeechStarted(self.epoch, begin, cuts))
            # Decided: what was cut is gone, and what was not (interruptions off, another reply) goes on.
            self._driver.playout.hold(False)

    def speech_paused(self, paused: bool) -> None:
        if not self._is_closed:
            self._driver.playout.hold(paused)

    def speech_stopped(self, end: int) -> None:
        self._offer(i.SpeechStopped(self.epoch, self.map.to_track(end)))

    def user_partial(self, text: str) -> None:
        if not self._is_closed:
            self._driver.show_user_partial(text)

    def transcript_partial(self, item_id: ItemId, text: str) -> None:
        if not self._is_closed:
            self._driver.show_transcript(item_id, text)

    def turn_final(
        self, item_id: ItemId | None, text: str, confidence: float | None, start: int, end: int
    ) -> None:
        audio = AudioRange(self.map.to_track(start), self.map.to_track(end))
        pending = self._driver.session.state.untranscribed.get(item_id) if item_id is not None else None
        if pending is not None:
            audio = pending[1]
        self._offer(i.TurnFinal(self.epoch, text, confidence, audio, item_id))

    def turn_committed(self, start: int, end: int) -> None:
        audio = AudioRange(self.map.to_track(start), self.map.to_track(end))
        self._offer(i.TurnFinal(self.epoch, None, None, audio))

    def turn_failed(self, item_id: ItemId | None, reason: str) -> None:
        self._offer(i.TurnFailed(self.epoch, reason, item_id))

    # -- the sink: the model's side

    def reasoning_delta(self, response: ResponseId, delta: ReasoningDelta) -> None:
        known = self._driver.session.state.responses.get(response) if not self._is_closed else None
        if known is not None and known.phase == "active":
            self._driver.show_reasoning_delta(response, delta)
        else:
            self.late += 1

    def message_started(
        self,
        response: ResponseId,
        output_index: int,
        *,
        is_refusal: bool = False,
        reasoning: tuple[str, ...] = (),
    ) -> None:
        self._offer(i.MessageStarted(self.epoch, response, output_index, is_refusal, reasoning))
        self._name(response, output_index)

    def text_delta(self, response: ResponseId, output_index: int, text: str) -> None:
        item = self._item(response, output_index)
        if item is not None:
            self._driver.playout.add_text(item, text)

    def audio_delta(self, response: ResponseId, output_index: int, pcm: bytes, text_end: int) -> None:
        item = self._item(response, output_index)
        if item is not None and self.link is not None:
            self._driver.add_audio(item, self.link.output_format, pcm, text_end)

    def message_finished(self, response: ResponseId, output_index: int) -> None:
        item = self._item(response, output_index)
        if item is not None:
            self._driver.finish_audio(item)

    def call_started(
        self,
        response: ResponseId,
        output_index: int,
        call_id: CallId,
        name: str,
        *,
        reasoning: tuple[str, ...] = (),
    ) -> None:
        self._offer(i.CallStarted(self.epoch, response, output_index, call_id, name, reasoning))
        self._name(response, output_index)

    def _name(self, response: ResponseId, output_index: int) -> None:
        known = self._driver.session.state.responses.get(response)
        output = known.outputs.get(output_index) if known is not None else None
        if output is not None and self.link is not None and not self._is_closed:
            self.link.named(response, output_index, output.item_id)

    def call_delta(self, response: ResponseId, output_index: int, arguments: str) -> None:
        if self._item(response, output_index) is not None:
            self._driver.show_call_delta(response, output_index, arguments)

    def call_finished(self, response: ResponseId, output_index: int, arguments: str) -> None:
        self._offer(i.CallFinished(self.epoch, response, output_index, arguments))

    def buffered_ms(self) -> int:
        return self._driver.playout.queued_ms

    def response_finished(self, response: ResponseId, usage: Usage, reason: str) -> None:
        if self._is_closed:
            return
        if reason.startswith("failed"):
            code = reason.partition(":")[2] or "server_error"
            problem = Problem(code, "The model could not finish this response.", "server_error")
            cuts = self._driver.playout.cuts()
            self._driver.offer(i.ResponseFailed(self.epoch, response, problem, cuts))
            self._driver.playout.clear(response)
            return
        is_released = self._driver.playout.is_all_released
        self._driver.offer(i.ResponseGenerated(self.epoch, response, usage, reason, is_released))
        if not is_released:
            self._driver.playout.finish_response(response)

    def conversation(self) -> Sequence[Item]:
        return self._driver.session.state.conversation()

    def state_changed(self) -> None:
        """A step had facts: an item that was open may not be so any more."""
        self._said = None

    def _item(self, response: ResponseId, output_index: int) -> ItemId | None:
        """The open item that content belongs to; late or unknown content has none and is counted."""
        if response == self._said and output_index == self._said_output and not self._is_closed:
            return self._said_item
        known = self._driver.session.state.responses.get(response) if not self._is_closed else None
        output = known.outputs.get(output_index) if known is not None and known.phase == "active" else None
        if output is None or output.phase != "open":
            self.late += 1
            return None
        self._said, self._said_output, self._said_item = response, output_index, output.item_id
        return output.item_id

    def _offer(self, input_: i.Input) -> None:
        if self._is_closed:
            self.late += 1
        else:
            self._driver.offer(input_)
