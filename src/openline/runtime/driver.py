"""The driver: input -> handle -> append -> show -> perform. One per live session, on one event loop.

It does not stop for the disk. ``append`` reserves the seqs and returns; what must wait for them waits in
its own queue (each connection's for frames, ``_owed`` for effects) until the durable mark has passed.
Audio never comes through ``offer``: it goes from the link to the playout to the connection.

Crash-only: if a step raises or its append is refused, this driver is dropped and the session is rebuilt
from its log. Cancellation: nothing here awaits inside a step, so a step is never cut in half.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.audio import RATE
from openline.core.model import AudioFormat, Cut
from openline.core.session import Session, Step
from openline.errors import LogConflict, LogUnavailable
from openline.ports import (
    Client,
    Clock,
    CodecFactory,
    LinkFactory,
    ReasoningDelta,
    Recorder,
    ResponseStart,
    SessionLog,
    StepCodec,
    StepRecord,
)
from openline.runtime.alarm import Alarm
from openline.runtime.caller_track import GAP_SAMPLES, CallerTrack
from openline.runtime.codecs import Codecs, Encoded
from openline.runtime.linkhost import LinkHost
from openline.runtime.playout import Playout, PlayoutHooks
from openline.runtime.spool import SpoolDesk
from openline.runtime.track import Track
from openline.types import CallId, ConnectionId, ItemId, Now, ResponseId, Role, Seq, TurnId

log = logging.getLogger(__name__)

REPORT_STEP_MS = 40
"""A late playout report that differs by less than a chunk tells nothing new."""
LAST_WORD_S = 0.6
"""A player that lags behind our clock goes on reporting, at least every half second; one that stopped does not."""
CLOSE_ELSEWHERE = 4503


class Host(Protocol):
    """What a driver needs of its gateway."""

    def run_tool(self, driver: SessionDriver, effect: e.RunTool) -> None: ...

    def prepare_reply(self, driver: SessionDriver, turn: TurnId) -> None: ...

    def facts_durable(self, driver: SessionDriver, first_seq: Seq, facts: tuple[f.Fact, ...]) -> None:
        """Facts of one step are on disk: handlers may see them."""

    def retire(self, driver: SessionDriver, error: Exception | None) -> None:
        """The driver has stopped; forget it."""

    async def read_recording(self, driver: SessionDriver, track: str, start: int, end: int) -> bytes:
        """What was recorded of [start, end), samples; b"" if some of it is not to be had."""


class SessionDriver:
    __slots__ = (
        *(
            "_agent_until",
            "_alarm",
            "_clock",
            "_codec",
            "_inbox",
            "_input_format",
        ),
        *("_is_busy", "_last_words", "_leaving", "_link_factory", "_log", "_loop", "_may_be_speech", "_owed"),
        *(
            "_tasks",
            "_undelivered",
            "buffer_start",
            "caller",
            "clients",
            "codecs",
            "durable_seq",
            "host",
        ),
        *("is_stopped", "link", "playout", "session", "unheard_from"),
    )

    def __init__(
        self,
        session: Session,
        *,
        log_store: SessionLog,
        codec: StepCodec,
        clock: Clock,
        link_factory: LinkFactory,
        host: Host,
        recorder: Recorder | None,
        desk: SpoolDesk | None = None,
        make_codec: CodecFactory | None = None,
    ) -> None:
        self.session = session
        self.codecs = Codecs(make_codec)
        self.host = host
        self.clients: dict[ConnectionId, Client] = {}
        self._leaving: list[tuple[Seq, Client]] = []
        """Clients that were told to go and wait for the disk to hear why."""
        self.link: LinkHost | None = None
        self.is_stopped = False
        self.durable_seq: Seq = session.state.seq
        self._log = log_store
        self._codec = codec
        self._clock = clock
        self._link_factory = link_factory
        self._loop = asyncio.get_running_loop()
        # Lists: nearly always empty or short, and an empty deque holds 760 bytes of every session.
        self._inbox: list[i.Input] = []
        self._is_busy = False
        self._owed: list[tuple[Seq, e.Effect, ResponseStart | None]] = []
        self._undelivered: list[tuple[Seq, tuple[f.Fact, ...]]] = []
        self._alarm = Alarm(self._loop, clock, self._pass_time)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._last_words: dict[ItemId, asyncio.TimerHandle] = {}
        self.buffer_start = 0
        self.caller = CallerTrack(self.codecs.fresh, clock.wall_ms, self._append_audio, recorder)
        self.unheard_from: int | None = None
        """Where on the caller's track begins what no model may have heard, while a link is lost."""
        self._look_at_state()
        self._agent_until = 0
        hooks = PlayoutHooks(
            self._released_text,
            self._released_audio,
            self._finished,
            self._released,
            self._progressed,
            self._played_out,
            self._played,
            self._recall,
            self._tape_full,
        )
        self.playout = Playout(hooks, clock.seconds, self._loop, desk)

    # -- steps

    def offer(self, input_: i.Input) -> Step | None:
        """Handle an input now; None if it was queued behind the step that caused it, or refused (stopped)."""
        if self.is_stopped:
            return None
        if self._is_busy:
            self._inbox.append(input_)
            return None
        self._is_busy = True
        try:
            step = self._step(input_)
            while self._inbox and not self.is_stopped:
                self._step(self._inbox.pop(0))
        except Exception as error:  # the edge: our bug, or the store refused; the log is the truth
            log.exception("session %s: step failed, rebuilding from its log", self.session.state.session)
            self.stop(error)
            return None
        finally:
            self._is_busy = False
        return step

    def _step(self, input_: i.Input) -> Step:
        now = self._clock.now()
        step = self.session.handle(input_, now)
        if step.facts:
            if self.link is not None:
                self.link.state_changed()
            self._append(step, now)
            for client in self.clients.values():
                client.show(self.session.state.epoch, step.first_seq, step.facts)
        for effect in step.effects:
            self._take(effect, step)
        self._after(step)
        if not self.is_stopped:
            self._alarm.set(step.wake_at, now)
        return step

    def _append(self, step: Step, now: Now) -> None:
        state = self.session.state
        self._log.append(
            StepRecord(
                state.session,
                state.epoch,
                step.first_seq,
                tuple(fact.TYPE for fact in step.facts),
                self._codec.encode(step, now),
                now.wall_ms,
                state.tenant,
                state.status,
                step.durable_wake_ms,
            )
        )
        self._undelivered.append((step.last_seq, step.facts))

    def _after(self, step: Step) -> None:
        for fact in step.facts:
            match fact:
                case f.OutputItemAdded():
                    self._begin_item(fact)
                case f.ConnectionDetached(conn=conn):
                    leaving = self.clients.pop(conn, None)
                    if leaving is not None:
                        self._leaving.append((step.last_seq, leaving))
                case f.TurnCommitted(item=item) if item is not None and item.content[0].audio is not None:
                    self.buffer_start = item.content[0].audio.end
                case f.InputCleared():
                    self.buffer_start = self.caller.position
                case f.SessionParked() | f.SessionEnded():
                    self.playout.drop()
                case _:
                    pass
        if step.facts:
            self._look_at_state()
        if self.link is not None and self.link.link is not None and step.facts:
            self.link.link.playing(self.playout.is_playing)

    def _look_at_state(self) -> None:
        """What the caller's audio needs of it: looked up once a step, not at each of 50 frames a second."""
        state, caller = self.session.state, self.caller
        caller.origin_ms = state.created_ms
        self._input_format = state.config.input_format
        self._may_be_speech = state.turn is not None or state.config.turn_detection is None
        caller.is_speech = self._may_be_speech or self.unheard_from is not None
        if self._input_format != "pcm":
            self.leave_straight()

    def _pass_time(self) -> None:
        """A line that sends nothing stands still; the track is where the wall clock says, as for what comes next."""
        elapsed, position = self.caller.elapsed(), self.caller.position
        self.offer(i.TimePassed(position if elapsed - position <= GAP_SAMPLES else elapsed))

    # -- the log's answers

    def appended(self, last_seq: Seq) -> None:
        self.durable_seq = last_seq
        while self._owed and self._owed[0][0] <= last_seq:
            _, effect, start = self._owed.pop(0)
            self._perform(effect, start)
        for client in [*self.clients.values(), *(client for _, client in self._leaving)]:
            client.durable(last_seq)
        self._leaving = [(seq, client) for seq, client in self._leaving if seq > last_seq]
        while self._undelivered and self._undelivered[0][0] <= last_seq:
            seq, facts = self._undelivered.pop(0)
            self.host.facts_durable(self, Seq(seq - len(facts) + 1), facts)

    def refused(self, error: Exception) -> None:
        level = logging.WARNING if isinstance(error, (LogConflict, LogUnavailable)) else logging.ERROR
        log.log(level, "session %s: append refused (%s)", self.session.state.session, type(error).__name__)
        self.stop(error)

    # -- effects

    def _take(self, effect: e.Effect, step: Step) -> None:
        """Perform at once what only stops or answers; owe the rest until its own step is durable."""
        start = self._started(effect) if isinstance(effect, e.StartResponse) else None
        if effect.WAITS and effect.KIND != "connection" and step.facts:
            self._owed.append((step.last_seq, effect, start))
        else:
            self._perform(effect, start)

    def _started(self, effect: e.StartResponse) -> ResponseStart | None:
        """The context is taken now, at the step that asks: later items belong to later responses."""
        response = self.session.state.responses.get(effect.response_id)
        if response is None:
            return None
        state = self.session.state
        return ResponseStart(effect.response_id, effect.request, state.config, state.context(response))

    def _perform(self, effect: e.Effect, start: ResponseStart | None) -> None:
        match effect:
            case e.SendError() | e.SendReceipt() | e.ResendItem() | e.CloseConnection():
                self._tell(effect)
            case e.ClearPlayout(response_id):
                self.playout.clear(response_id)
            case e.OpenLink(link_epoch, delay_ms):
                self._open_link(link_epoch, delay_ms)
            case e.CloseLink():
                self._close_link()
            case e.RunTool():
                self.host.run_tool(self, effect)
            case e.PrepareReply(turn_id):
                self.host.prepare_reply(self, turn_id)
            case _:
                self._command_link(effect, start)

    def _command_link(self, effect: e.Effect, start: ResponseStart | None) -> None:
        host = self.link
        link = host.link if host is not None else None
        if host is None or link is None:
            return  # A new link is given the state; commands of a dead one die with it.
        match effect:
            case e.StartResponse(response_id):
                if start is not None and response_id in self.session.state.responses:
                    link.start_response(start)
            case e.StopResponse(response_id):
                link.cancel_response(response_id)
            case e.AddItem(item, previous):
                link.add_item(item, previous)
            case e.RemoveItem(item_id):
                link.remove_item(item_id)
            case e.CutItem(item_id, audio_end_ms, text):
                link.truncate(item_id, audio_end_ms, text)
            case e.ConfigureLink(config):
                link.update(config)
            case e.TranscribeAudio(item_id, audio):
                host.transcribe(item_id, audio)
            case e.HearAgain(item_id, spoken_from):
                host.hear_again(item_id, spoken_from)
            case e.DropAudio():
                link.clear_audio()
            case _:
                raise AssertionError(f"effect {type(effect).__name__} has no performer")

    def _tell(self, effect: e.SendError | e.SendReceipt | e.ResendItem | e.CloseConnection) -> None:
        client = self.clients.get(effect.conn)
        if client is None:
            return
        match effect:
            case e.SendError(_, command, problem):
                client.error(command, problem)
            case e.SendReceipt(_, command, outcome):
                client.receipt(command, outcome)
            case e.ResendItem(_, item, previous):
                client.resend_item(item, previous)
            case e.CloseConnection(_, code, reason):
                client.close(code, reason)

    # -- the link

    def _open_link(self, epoch: int, delay_ms: int) -> None:
        self._close_link()
        if epoch != self.session.state.link.epoch or self.session.state.link.phase != "opening":
            return
        self.link = LinkHost(self, epoch)
        self.link.open(self._link_factory, delay_ms / 1000)

    def _close_link(self) -> None:
        if self.link is not None:
            self.leave_straight()
            link, self.link = self.link, None
            link.close()

    # -- clients

    def attach(self, client: Client, attach: i.Attach) -> None:
        """Show the client the attach step first and everything after it; its own session.created came before."""
        self.clients[client.conn] = client
        self.offer(attach)
        if client.conn not in self.session.state.connections:
            return
        if client.role == "speaker":
            self.playout.listen(lead_ms=client.pacing_ms)
        elif client.role == "texter" and self.session.state.speaker is None:
            self.playout.listen(lead_ms=None)

    def make_way(self, role: Role) -> None:
        """Call before the attach of ``role``: what a speaker that is replaced cannot have played yet is kept for
        the new one. Its line may have been dead for a while, and nobody was told."""
        if role == "speaker" and self.session.state.speaker is not None:
            self.playout.unlisten(keep=True)

    def detach(self, conn: ConnectionId, code: int, clean: bool) -> None:
        client = self.clients.pop(conn, None)
        cuts: tuple[Cut, ...] = ()
        if client is not None and client.role == "speaker":
            texters = any(other.role == "texter" for other in self.clients.values())
            cuts = self.playout.unlisten(keep=not texters)
        self.offer(i.Detach(conn, code, clean, cuts))

    def append_audio(self, data: bytes, frame: bytes = b"") -> None:
        """``CallerTrack.append``: to the recording and the link."""
        self.caller.append(data, frame)

    def leave_straight(self) -> None:
        """The next audio goes by way of the link host."""
        if self.caller.straight is not None:
            self.caller.straight = None
            if self.link is not None:
                self.link.in_step(self.caller.position)

    def _append_audio(self, data: bytes, frame: bytes) -> None:
        """The whole way, for what does not go straight to the link."""
        self.leave_straight()
        caller = self.caller
        pcm, encoded, samples = data, None, len(data) >> 1
        kept: bytes | Encoded = data
        name = self._input_format
        if name != "pcm":
            encoded, frame = Encoded(name, data), b""
            if self.recorder is None and self.link is not None and self.link.passes(name):
                pcm, kept, samples = b"", encoded, encoded.samples
                self.codecs.pass_caller()
            else:
                kept = pcm = self.codecs.from_caller(name, data)
                samples = len(pcm) >> 1
        before = caller.position
        start, end = caller.place(samples)
        if self.buffer_start == before:
            self.buffer_start = start
        caller.is_speech = self._may_be_speech or self.unheard_from is not None
        caller.keep(start, end, pcm, kept)
        if self.link is not None:
            self.link.append(pcm, start, end, encoded, frame)
        elif self.unheard_from is None:
            self.unheard_from = start

    def add_audio(self, item: ItemId, given: AudioFormat, data: bytes, text_end: int) -> None:
        """A piece of an item from the link, put on the tape as its listener is sent it."""
        track = self.playout.track(item)
        if track is None:
            return
        if given != track.format:
            data = self.codecs.to_listener(item, given, track.format, data)
        if data:  # An encoder may hold back a piece of a few samples.
            self.playout.put_audio(track, data, text_end)

    def finish_audio(self, item: ItemId) -> None:
        if rest := self.codecs.last_of(item):
            self.playout.add_audio(item, rest, 0)
        self.playout.finish(item)

    @property
    def recorder(self) -> Recorder | None:
        return self.caller.recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        self.caller.recorder = recorder

    def now(self) -> Now:
        return self._clock.now()

    @property
    def heard_until(self) -> int:
        """Samples of the input track so far: where the next audio goes."""
        return self.caller.position

    def report_playout(self, item: ItemId, audio_end_ms: int) -> None:
        """The listener says what it has played; it knows better than the release clock, also a little later."""
        cut = self.playout.report(item, audio_end_ms)
        if cut is not None:
            self.offer(i.Heard(cut))
        elif not self.playout.is_on_tape(item):
            self._late_report(item, audio_end_ms)

    def _late_report(self, item: ItemId, audio_end_ms: int) -> None:
        """A report for an item that is over by our clock. Less of a whole item than that counts once the player
        says no more: until then it is only behind us, and the text must not be cut for that."""
        if (waiting := self._last_words.pop(item, None)) is not None:
            waiting.cancel()
        entry = self.session.state.entries.get(item)
        if entry is None or entry.heard_ms is None:
            return
        is_behind = audio_end_ms < entry.heard_ms and entry.item.status == "completed"
        if is_behind:
            self._last_words[item] = self._loop.call_later(
                LAST_WORD_S, self._take_last_word, item, audio_end_ms
            )
        else:
            self._take_last_word(item, audio_end_ms)

    def _take_last_word(self, item: ItemId, audio_end_ms: int) -> None:
        """Into the core, which bounds how late it may be; not if it says nothing new."""
        self._last_words.pop(item, None)
        entry = self.session.state.entries.get(item)
        if entry is None or entry.heard_ms is None or abs(audio_end_ms - entry.heard_ms) < REPORT_STEP_MS:
            return
        heard_ms = min(audio_end_ms, entry.audio_ms)
        self.offer(i.Heard(Cut(item, entry.item.text, entry.audio_ms, heard_ms, "reported")))

    # -- what the playout says

    def _begin_item(self, fact: f.OutputItemAdded) -> None:
        if fact.item.type == "message":
            spoken = fact.modality == "audio"
            response = self.session.state.responses.get(fact.response_id)
            name: AudioFormat = response.output_format if response is not None else "pcm"
            self.playout.start(Track(fact.response_id, fact.item.id, fact.output_index, spoken, format=name))

    def _released_text(self, track: Track, text: str) -> None:
        for client in self.clients.values():
            client.text_delta(track.response, track.item, track.index, text, track.is_spoken)

    def _released_audio(self, track: Track, pcm: bytes) -> None:
        for client in self.clients.values():
            if client.role == "speaker":
                client.audio_delta(track.response, track.item, track.index, pcm)

    def _finished(self, track: Track) -> None:
        self.offer(i.MessageFinished(track.response, track.index, track.text, int(track.audio_ms)))

    def _released(self, response: ResponseId) -> None:
        self.offer(i.ResponseReleased(response))

    def _progressed(self, track: Track) -> None:
        self.offer(i.MessageProgress(track.response, track.index, self.playout.cut_of(track)))

    def _played_out(self, track: Track, cut: Cut) -> None:
        self.offer(i.Heard(cut))

    def _played(self, track: Track, data: bytes, age_ms: float) -> int | None:
        if self.recorder is None:
            return None
        pcm = self.codecs.to_tape(track.format, data)
        wall = self._clock.wall_ms() - self.session.state.created_ms - age_ms
        start = max(self._agent_until, int(wall * RATE / 1000))
        if start - self._agent_until < GAP_SAMPLES:
            start = self._agent_until  # Timer jitter is no silence: chunks of one reply stay joined.
        self._agent_until = start + len(pcm) // 2
        is_recorded = self.recorder.write("agent", start, pcm)
        return start if is_recorded and pcm is data else None

    def _recall(self, start: int, end: int, came: Callable[[bytes], None]) -> None:
        async def read() -> None:
            try:
                pcm = await self.host.read_recording(self, "agent", start, end)
            except Exception as error:  # whatever it is, the tape waits for an answer
                log.warning(
                    "session %s: reading its recording failed (%s)",
                    self.session.state.session,
                    type(error).__name__,
                )
                pcm = b""
            came(pcm)

        self.spawn(read())

    def _tape_full(self, dropped_ms: int) -> None:
        self.offer(i.MediaDropped("playout", dropped_ms, "newest_first"))

    # -- partials that have no tape

    def show_user_partial(self, text: str) -> None:
        turn = self.session.state.turn
        if turn is not None:
            for client in self.clients.values():
                client.user_partial(turn.turn_id, turn.item_id, text)

    def show_transcript(self, item: ItemId, text: str) -> None:
        """Of a turn that is committed and not written down yet; of any other it comes too late."""
        waiting = self.session.state.untranscribed.get(item)
        if waiting is not None:
            for client in self.clients.values():
                client.transcript_partial(waiting[0], item, text)

    def show_call_delta(self, response: ResponseId, output_index: int, arguments: str) -> None:
        known = self.session.state.responses[response]
        output = known.outputs[output_index]
        spec = self.session.state.tool_spec(output.name, known.request)
        ours = spec is not None and spec.runner == "gateway"
        for client in self.clients.values():
            client.call_delta(response, output.item_id, output_index, CallId(output.call_id), arguments, ours)

    def show_reasoning_delta(self, response: ResponseId, delta: ReasoningDelta) -> None:
        for client in self.clients.values():
            client.reasoning_delta(response, delta)

    # -- end

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def kept_from(self) -> int:
        """Where what is kept of the caller's audio begins."""
        return 0 if self.recorder is not None else self.caller.kept_from

    async def caller_audio(self, start: int, end: int) -> bytes:
        """[start, end) of what the caller said: from the recording, else from memory; b"" if it is not to be had."""
        if self.recorder is not None:
            return await self.host.read_recording(self, "caller", start, end)
        return self.caller.read(start, end)

    def stop(self, error: Exception | None = None) -> None:
        """Step down: no more output, no more input. Clients are told to resume (elsewhere or here again)."""
        if self.is_stopped:
            return
        self.is_stopped = True
        self._alarm.cancel()
        for waiting in self._last_words.values():
            waiting.cancel()
        self.playout.close()
        self._close_link()
        self._owed.clear()
        self._inbox.clear()
        for client in [*self.clients.values(), *(client for _, client in self._leaving)]:
            client.close(CLOSE_ELSEWHERE, "resume")
        self.clients.clear()
        self._leaving.clear()
        self.host.retire(self, error)
