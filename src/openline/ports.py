"""Every outside thing behind one small protocol. Adapters and their in-memory twins implement these.

One conformance suite per port (``openline.testing``) holds the real one and the twin to the same rules.
Nothing here imports an adapter. Rates: unless a name says otherwise audio is PCM16 little-endian mono,
24,000 samples a second (20 ms = 480 samples = 960 bytes).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from openline.core.facts import Fact
from openline.core.model import AudioFormat, Item, Problem, ResponseRequest, SessionConfig, ToolSpec, Usage
from openline.core.session import Step, StoredStep
from openline.core.value import Value
from openline.types import (
    CallId,
    ConnectionId,
    Epoch,
    ItemId,
    Now,
    ResponseId,
    Role,
    Seq,
    SessionId,
    TurnId,
)

WIRE_RATE = 24_000
"""Samples a second on every port of ours; fixed by OpenAI Realtime (openai-protocols.md B.5)."""
SPEECH_RATE = 16_000
"""Samples a second that voice activity detection and recognition take (Silero v6, PocketSphinx en-us)."""


class Clock(Protocol):
    """``seconds`` and ``wall_ms`` are the two halves of ``now`` for those who need one of them a hundred times a
    second and session: monotonic seconds (``mono_ns`` / 1e9) and Unix milliseconds."""

    def now(self) -> Now: ...
    def seconds(self) -> float: ...
    def wall_ms(self) -> int: ...


# --------------------------------------------------------------------------------------------- the log


class StepRecord(Value, frozen=True):
    """One step as it is stored: facts ``first_seq … first_seq + fact_count - 1`` of one session.

    ``body`` is the encoded input with its facts (``wire.envelope``), opaque to the store. ``types`` are
    the fact types in order, so that the feed can filter without decoding. ``index`` holds what the
    session list shows and the wake-up row; None fields leave the row as it is.
    """

    session: SessionId
    epoch: Epoch
    first_seq: Seq
    types: tuple[str, ...]
    body: bytes
    at_ms: int
    tenant: str = "default"
    status: str | None = None
    wake_at_ms: int | None = None
    """Earliest durable deadline (Unix ms) after this step; 0 clears it; None leaves it."""

    @property
    def last_seq(self) -> Seq:
        return Seq(self.first_seq + len(self.types) - 1)


class SessionRow(Value, frozen=True):
    """What the store knows of a session without reading its log."""

    session: SessionId
    tenant: str
    epoch: Epoch
    node: str
    last_seq: Seq
    status: str
    created_ms: int
    updated_ms: int


class FeedEntry(Value, frozen=True):
    """One stored step with its place in the store's own stable order; ``cursor`` is opaque, sortable text."""

    cursor: str
    record: StepRecord


class AppendSink(Protocol):
    """What a session's owner hears about its appends. Called on the owner's event loop, in order."""

    def appended(self, last_seq: Seq) -> None:
        """Everything up to ``last_seq`` is durable (it survives power loss)."""

    def refused(self, error: Exception) -> None:
        """An append of this session was refused or failed; it and all later ones of it are not stored.

        LogConflict: ownership is lost. LogUnavailable: nothing of it was stored, rebuild from the log.
        """


class SessionLog(Protocol):
    """The store: an append-only log per session, a stable feed over all, ownership, wake-ups, small values.

    All methods are called from one event loop. A crash at any moment leaves per session a gap-free
    prefix of what was appended; everything reported by ``appended`` is in it.
    """

    async def open(self) -> None:
        """Open or create. Raises DataDirectoryError: unwritable, held by another gateway, newer version."""

    async def close(self) -> None:
        """Flush what is queued, then close. Appends after this raise LogUnavailable. Idempotent."""

    async def acquire(
        self, session: SessionId, node: str, *, tenant: str = "default", create: bool = False
    ) -> tuple[Epoch, Seq]:
        """Take ownership: the next epoch (1 for a new session) and the last stored seq (0 for none).

        Appends under an older epoch are refused from here on. ``create`` false: raises SessionNotFound
        for an unknown session; ``create`` true makes it. A session of another tenant is not found.
        """

    def subscribe(self, session: SessionId, sink: AppendSink | None) -> None:
        """Set (or with None remove) who hears about this session's appends."""

    def append(self, record: StepRecord) -> None:
        """Reserve and queue; never waits, never blocks. The outcome comes to the session's sink.

        Records of one session are stored in call order or not at all. Raises LogUnavailable when the
        queue is at its hard limit or the store is closed: the record is not queued.
        """

    @property
    def is_saturated(self) -> bool:
        """True while the queue is above its high mark: callers stop taking new input until it clears."""

    def on_relief(self, callback: Callable[[], None]) -> None:
        """``callback`` is called on the loop each time the queue falls below its low mark again."""

    async def flush(self) -> None:
        """Return once everything queued before the call is durable or refused."""

    async def read(self, session: SessionId, *, after: Seq = Seq(0), limit: int = 1000) -> list[StepRecord]:
        """Durable steps whose last seq is greater than ``after``, in order. Raises SessionNotFound."""

    async def sessions(
        self, *, tenant: str | None = "default", status: str | None = None, limit: int = 100, before: str = ""
    ) -> list[SessionRow]:
        """Newest first by creation; ``before`` is a session id to page from; ``tenant`` None: of all."""

    async def session(self, session: SessionId) -> SessionRow:
        """Raises SessionNotFound."""

    async def feed(
        self,
        *,
        after: str = "",
        limit: int = 500,
        types: Sequence[str] = (),
        session: SessionId | None = None,
        tenant: str | None = None,
    ) -> list[FeedEntry]:
        """Durable steps of all sessions in the store's order, after an opaque cursor ("" = from the start).

        A step is returned if any of its types is in ``types`` (empty = all; ``x.*`` matches a prefix).
        """

    async def feed_end(self) -> str:
        """Cursor of the newest durable step ("" for an empty log): where a follower of only new steps begins."""

    def on_feed(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` (on the loop) after each commit; returns the function that stops it."""

    async def due_wakeups(self, now_ms: int, *, limit: int = 100) -> list[SessionId]:
        """Sessions whose ``wake_at_ms`` has passed, earliest first. The row stays until an append changes it."""

    async def put_value(self, space: str, key: str, value: bytes, *, expires_ms: int = 0) -> None:
        """Durable small value (client secrets, receipts, notes); replaces. ``expires_ms`` 0 = never."""

    async def get_value(self, space: str, key: str, *, now_ms: int = 0) -> bytes | None:
        """None when absent or expired at ``now_ms``."""

    async def delete_session(self, session: SessionId) -> None:
        """Forget a session: log, rows, wake-up. Recordings are files and are removed by their owner."""

    def statistics(self) -> LogStatistics:
        """Counters since open."""


@dataclass(slots=True)
class LogStatistics:
    appended_steps: int = 0
    appended_facts: int = 0
    commits: int = 0
    refused: int = 0
    queue_items: int = 0
    queue_items_max: int = 0
    queue_bytes: int = 0
    commit_ms_last: float = 0.0
    commit_ms_max: float = 0.0


# ------------------------------------------------------------------------------------------ speech ports


class Resample(Protocol):
    """A streaming sample-rate converter of one track; PCM16 in and out, any even number of bytes."""

    def convert(self, pcm: bytes) -> bytes: ...

    def flush(self) -> bytes:
        """What is still held; afterwards the stream starts anew."""

    def reset(self) -> None: ...


class AudioCodec(Protocol):
    """A client's audio format to and from PCM16 24 kHz; two streams, one each way, of one track. Not shared."""

    def decode(self, data: bytes) -> bytes:
        """PCM16 24 kHz for encoded audio, any number of bytes. Over time exactly as long as that."""

    def encode(self, pcm: bytes) -> bytes: ...

    def flush(self) -> bytes:
        """Encoded audio that ``encode`` still holds; afterwards that stream starts anew."""


CodecFactory = Callable[[AudioFormat], AudioCodec]
"""Makes the codec of a format other than "pcm"."""


class VoiceDetector(Protocol):
    """Voice activity of one session. Not shared between sessions: it has state."""

    frame_samples: int
    """Samples (at SPEECH_RATE) that one ``probability`` call takes: 512 for Silero."""

    def probability(self, frame: bytes) -> float:
        """Chance 0..1 that ``frame`` (``frame_samples`` of PCM16 at 16 kHz) is speech. At most ~100 µs; never awaits."""

    def reset(self) -> None:
        """Forget all audio seen."""


@runtime_checkable
class ClosableDetector(VoiceDetector, Protocol):
    """A detector that holds more than memory; ``close`` is called once, when its session's link ends."""

    def close(self) -> None: ...


class Transcript(Value, frozen=True):
    """``confidence`` 0..1 or None where the engine has none. ``text`` "" means no words were found."""

    text: str
    confidence: float | None = None
    engine: str = ""


class SpeechServer(Protocol):
    """Where a recognizer or a voice over HTTP is (``adapters.llm_openai.Endpoint``)."""

    @property
    def model(self) -> str: ...
    @property
    def host(self) -> str: ...
    def at(self, path: str) -> str:
        """The URL of ``path`` under the base."""

    def headers(self) -> dict[str, str]:
        """With the key as it is now."""


class RecognizerStream(Protocol):
    """One utterance. Made by ``Recognizer.stream``; exactly one of finish and cancel ends it."""

    def push(self, pcm16k: bytes) -> None:
        """Queue audio (PCM16 mono 16 kHz, any even length). Never waits. Bounded: 60 s, then SpeechError."""

    async def finish(self) -> Transcript:
        """All audio has been pushed: the final result. Raises SpeechError (engine died, timed out)."""

    async def cancel(self) -> None:
        """Drop the utterance and free its slot. Idempotent; never raises."""


class Recognizer(Protocol):
    """Speech to text; shared by all sessions of a process. Slots are admitted by a pool."""

    name: str

    async def start(self) -> None:
        """Load models, start workers. Raises SpeechError with what to install."""

    async def close(self) -> None: ...

    def stream(
        self, on_partial: Callable[[str], None], *, grammar: Sequence[str] = (), language: str = "en"
    ) -> RecognizerStream:
        """Begin an utterance at once; audio is buffered until a slot is free.

        ``on_partial`` gets the whole text so far, on the caller's loop, at most every 100 ms, possibly
        revised. ``grammar``: if given, only these phrases can come out (JSGF alternatives).
        """

    @property
    def free_slots(self) -> int:
        """Utterances that could start now without waiting."""


class Speech(Value, frozen=True):
    """A piece of synthesized audio (PCM16 24 kHz mono) with the text it finishes.

    ``text_end``: characters of the whole text that are spoken when this chunk has been played: the mark
    by which heard text is cut.
    """

    pcm: bytes
    text_end: int


class Synthesizer(Protocol):
    """Text to speech; shared by all sessions of a process."""

    name: str

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def speak(self, text: str, *, voice: str = "", speed: float = 1.0) -> AsyncGenerator[Speech, None]:
        """Audio of one sentence (or clause), in chunks of 20–100 ms. Zero audio for non-empty words is a SpeechError.

        Closing the iterator (``aclose``) stops the engine within one chunk and frees its slot.
        """


# ------------------------------------------------------------------------------------ language model port


class ModelRequest(Value, frozen=True):
    """One generation. ``items`` is the context in order, assistant items already cut to what was heard."""

    session: SessionId
    response_id: ResponseId
    instructions: str
    items: tuple[Item, ...]
    tools: tuple[ToolSpec, ...]
    tool_choice: str
    """JSON text: "auto" | "none" | "required" | {"type":"function","name":…}."""
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = None
    model: str = ""
    text_format: str = ""
    """JSON text: {"type":"json_schema","name":…,"schema":…} | {"type":"json_object"}; "" for any text. A model that
    cannot keep to one says what it can."""
    options: str = ""
    """JSON text: an object with any of temperature, top_p, verbosity and reasoning, as the Responses API has them;
    "" for none. A model leaves what it has no setting for."""


class TextDelta(Value, frozen=True):
    text: str


class RefusalDelta(Value, frozen=True):
    """Text by which the model declines. Not said in one message with other text: each change begins another."""

    text: str


class ReasoningDelta(Value, frozen=True):
    """A piece of what the model thinks, for people: of ``part`` of a summary (``is_summary``), or of the thoughts
    themselves. ``text`` "": reasoning item ``id`` begins. One that never has its ReasoningDone was given up."""

    id: str
    part: int
    text: str
    is_summary: bool = True


class ReasoningDone(Value, frozen=True):
    """The whole reasoning item as JSON text (``wire.reasoning``), told before what it led to. A model is given it
    back in front of that (``Item.reasoning``), and leaves out what it cannot read."""

    id: str
    item: str


class ToolCallDelta(Value, frozen=True):
    """A piece of a call's JSON arguments; ``index`` tells parallel calls apart."""

    index: int
    call_id: str
    name: str
    arguments: str


class ToolCallDone(Value, frozen=True):
    index: int
    call_id: str
    name: str
    arguments: str


class ModelDone(Value, frozen=True):
    usage: Usage = Usage()
    reason: str = "completed"
    """completed | max_output_tokens | content_filter | steered (``SteerableModel``)."""


ModelEvent = (
    TextDelta | RefusalDelta | ReasoningDelta | ReasoningDone | ToolCallDelta | ToolCallDone | ModelDone
)


class LanguageModel(Protocol):
    """Text in, text and tool calls out; shared by all sessions. Raises LinkRejected or LinkUnavailable."""

    name: str

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream one reply; ends with exactly one ModelDone. ``aclose`` cancels and frees the socket at once."""


class SteerAnswer(Value, frozen=True):
    """What a model says to input for a generation that runs.

    "accepted": the generation ends by itself: at its next safe boundary with ModelDone "steered", or as it would have
    without. "refused": it goes on as it was; ``code`` is the provider's (invalid_input, too_many_pending_steers,
    response_not_active, …). "not_offered": this model takes none, and says so without asking anybody from the second
    time on. "unknown": nobody answered, or the line was lost.
    """

    outcome: Literal["accepted", "refused", "not_offered", "unknown"]
    code: str = ""


NOT_OFFERED = SteerAnswer("not_offered")


@runtime_checkable
class SteerableModel(LanguageModel, Protocol):
    """A language model that can be given input while it generates. One without ``steer`` offers none.

    The input stays the caller's, whatever the answer: it asks for what follows by a ``generate`` of the same session
    whose context is the first one's, what was made of it, the outputs of its calls if it made any, and then the
    input. The model sees to it that the provider has the input exactly once: if it has begun to answer it already,
    that is what this second ``generate`` streams; if it keeps the input for the calls' outputs, only those are sent;
    if it lost it or gave it back, it is sent again.
    """

    async def steer(self, request: ModelRequest, items: tuple[Item, ...]) -> SteerAnswer:
        """``request``: what the running ``generate`` was asked; ``items``: messages of the user.

        Returns with the provider's answer, in seconds at most once it has begun. Raises nothing of its own.
        Cancellation leaves open whether the input was sent; the rule above holds all the same.
        """


# --------------------------------------------------------------------------------------------- model link


class Outputs(Protocol):
    """What a model makes of one response, item by item; each by its index among them."""

    def reasoning_delta(self, response: ResponseId, delta: ReasoningDelta) -> None:
        """What the model thinks, while it does; nothing durable, and never spoken."""
        return

    def message_started(
        self,
        response: ResponseId,
        output_index: int,
        *,
        is_refusal: bool = False,
        reasoning: tuple[str, ...] = (),
    ) -> None:
        """``reasoning``: the finished reasoning items that led to it; kept with it."""

    def text_delta(self, response: ResponseId, output_index: int, text: str) -> None: ...

    def message_finished(self, response: ResponseId, output_index: int) -> None: ...

    def call_started(
        self,
        response: ResponseId,
        output_index: int,
        call_id: CallId,
        name: str,
        *,
        reasoning: tuple[str, ...] = (),
    ) -> None: ...

    def call_delta(self, response: ResponseId, output_index: int, arguments: str) -> None: ...

    def call_finished(self, response: ResponseId, output_index: int, arguments: str) -> None: ...


class LinkSink(Outputs, Protocol):
    """What a link tells its session. Sample positions count the audio appended to this link since it was
    opened (24 kHz); the runtime maps them to the session's track. All calls are synchronous, on the loop, and carry
    the link's epoch implicitly: the runtime gives every link a sink of its own and stops listening when the link is
    replaced.
    """

    def opened(self) -> None:
        """The link is ready. The link's ``hears`` says whether a reply must wait for the turn's text."""

    def lost(self, error: Exception) -> None:
        """The link is gone. LinkRejected: do not reopen. Anything else: reopen with backoff."""

    def renewed(self, why: str) -> None:
        """The link has gone over to a new connection by itself, and nothing was cut. ``why``: one word."""
        return

    # -- the user's side (links that detect turns themselves)
    def speech_started(self, start: int) -> None:
        """Speech began at sample ``start`` of what was appended, padding already subtracted."""

    def speech_paused(self, paused: bool) -> None:
        """Possible barge-in: hold (True) or go on with (False) what is being played. Nothing durable."""

    def speech_stopped(self, end: int) -> None: ...

    def user_partial(self, text: str) -> None:
        """The whole transcript of the open turn so far; may be revised."""

    def transcript_partial(self, item_id: ItemId, text: str) -> None:
        """The transcript so far of a committed turn; it is only added to."""
        return

    def turn_final(
        self, item_id: ItemId | None, text: str, confidence: float | None, start: int, end: int
    ) -> None:
        """The turn is final. ``item_id`` names a manually committed item; None means the open VAD turn."""

    def turn_committed(self, start: int, end: int) -> None:
        """The open turn is over and its text will follow by ``turn_final`` (links that hear). The item it
        became is given back by ``add_item``."""

    def turn_failed(self, item_id: ItemId | None, reason: str) -> None: ...

    # -- the model's side: beside Outputs
    def audio_delta(self, response: ResponseId, output_index: int, pcm: bytes, text_end: int) -> None:
        """In the link's ``output_format``; ``text_end``: characters of the item's text spoken at the end of this chunk."""

    def buffered_ms(self) -> int:
        """Audio given to the sink and not yet released: a synthesizer is paced by this, a socket never is."""

    def response_finished(self, response: ResponseId, usage: Usage, reason: str) -> None:
        """Nothing more will come. ``reason``: completed | max_output_tokens | content_filter | failed:<code>."""

    def conversation(self) -> Sequence[Item]:
        """Every finished item as heard, in order, as ``ModelLink.open`` is given them: for a link that renews
        its connection by itself."""
        return ()


class ResponseStart(Value, frozen=True):
    """One response as a link is asked for it; ``items`` is the context (heard text).

    Its last few are at hand, the others are unpacked when somebody reads that far: a link that knows the
    conversation leaves them alone, one that needs all of it makes a tuple of it once.
    """

    response_id: ResponseId
    request: ResponseRequest
    config: SessionConfig
    items: Sequence[Item]


Straight = Callable[[bytes, int, bytes], bool]
"""Takes the caller's PCM16 24 kHz if nothing is to be done with it but send it on: the audio, how many samples they
are, the event they came in (as ``ModelLink.append_audio``). False: more is, and nothing was done."""


class ModelLink(Protocol):
    """One live connection to a model, at the level of Realtime semantics. One per session and link epoch.

    ``hears``: it takes audio itself (speech to speech); its replies do not wait for transcripts.
    ``input_format``, ``output_format``: what it takes and gives, read at each piece of audio; where the client's is
    the same it is passed through as it is. ``straight``: where ``append_audio`` may be left out; read after an
    ``append_audio``, and good until it says False.
    """

    __slots__ = ()

    hears: bool = False
    straight: Straight | None = None
    input_format: AudioFormat = "pcm"
    output_format: AudioFormat = "pcm"

    async def open(self, sink: LinkSink, config: SessionConfig, items: Sequence[Item]) -> None:
        """Connect and rehydrate with ``items``. Ends with ``sink.opened`` or raises LinkError."""

    async def close(self) -> None:
        """Idempotent. Afterwards the sink is not called again."""

    def append_audio(self, pcm: bytes, frame: bytes = b"") -> None:
        """Caller audio, PCM16 24 kHz. Never waits; bounded inside.

        ``frame``: the client event that brought it, a good ``input_audio_buffer.append`` as JSON; b"" where there is
        none. A link that writes the same event need not encode the audio again.
        """

    def replay_audio(self, pcm: bytes) -> None:
        """Like ``append_audio``, for what was held until the link opened or what an earlier link was given already: it
        comes all at once, and none of it may be dropped, nor what is appended behind it."""
        self.append_audio(pcm)

    def unconfirmed(self) -> int:
        """Samples at the end of what was appended of which nobody knows that the model received them: nothing has
        come from it since. Also asked once the link is lost."""
        return 0

    def append_encoded(self, data: bytes, samples: int, *, is_replay: bool = False) -> None:
        """Caller audio in ``input_format``; called instead of ``append_audio`` while that is not "pcm".

        ``samples``: how far it moves the link's positions, in samples at 24 kHz. ``is_replay``: as ``replay_audio``.
        """
        raise AssertionError("expected a link that takes its input_format")

    def commit_audio(self, item_id: ItemId, start: int, end: int) -> None:
        """The client committed this range as ``item_id``: answer with ``turn_final`` or ``turn_failed`` for it."""

    def clear_audio(self) -> None: ...

    def recognize(self, item_id: ItemId, pcm: bytes) -> bool:
        """Recognise audio (24 kHz) that this link never heard, after a restart; answered like ``commit_audio``.

        False: this link cannot; the turn then fails with its reason.
        """
        return False

    def update(self, config: SessionConfig) -> None: ...

    def add_item(self, item: Item, previous: ItemId | None) -> None: ...

    def remove_item(self, item_id: ItemId) -> None: ...

    def truncate(self, item_id: ItemId, audio_end_ms: int, text: str) -> None: ...

    def start_response(self, start: ResponseStart) -> None: ...

    def cancel_response(self, response: ResponseId) -> None:
        """Stop at once. Whatever still comes for it is ignored by the sink. No ``response_finished`` is needed."""

    def named(self, response: ResponseId, output_index: int, item_id: ItemId) -> None:
        """The session's id for an output item of this link, told right after it was started."""
        return

    def playing(self, is_playing: bool) -> None:
        """Tells a link with its own turn detection whether the agent is audible now (for barge-in rules)."""


class LinkFactory(Protocol):
    """Makes links for one session; picked by ``bootstrap`` from the model's name."""

    def __call__(self, session: SessionId, config: SessionConfig) -> ModelLink: ...


# ------------------------------------------------------------------------------------------ tools, recording


class ToolRunner(Protocol):
    async def run(self, session: SessionId, call_id: CallId, key: str, name: str, arguments: str) -> str:
        """Run a gateway tool once; the result as text for the model. ``key`` is the idempotency key.

        Raises ToolError. Cancelled when the session ends; the effect may or may not have happened.
        """


class Segment(Value, frozen=True):
    """A finished piece of a recording track: where its samples are and their hash (SHA-256 hex)."""

    track: str
    start: int
    samples: int
    file: str
    sha256: str


class Recorder(Protocol):
    """Lossless recording of one session, one track per speaker, true silence in between."""

    def write(self, track: str, start: int, pcm: bytes) -> bool:
        """``start``: sample offset in the track. Never waits; written off the loop; bounded. False: it was dropped."""

    async def flush(self) -> None:
        """Returns when what was written before can be read (it is not synced), or never can. Safe to cancel."""

    async def close(self) -> None: ...


Segments = Callable[[Segment], None]


class SpoolFile(Protocol):
    """Scratch space: for one session's audio, or for what is old in conversations. Calls block, each may raise
    OSError. Writes come from one thread, one at a time; reads may come beside them, of what was written before.
    Nothing of it survives the process."""

    def write(self, at: int, data: bytes) -> None: ...

    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes; fewer where less was written."""

    def truncate(self) -> None:
        """Give the space back; the file is empty and stays open."""

    def close(self) -> None: ...


# ------------------------------------------------------------------------------- codec and clients of a session


class StepCodec(Protocol):
    """How steps become bytes; ``wire.envelope`` in production. Pure."""

    def encode(self, step: Step, now: Now) -> bytes: ...

    def decode(self, body: bytes) -> StoredStep:
        """Raises LogCorrupt."""


class Client(Protocol):
    """One attached connection as the runtime sees it; made by the server for its protocol.

    Everything is synchronous and never waits: frames go into the connection's one outbound queue in
    call order, and each waits there until the durable mark has reached what it needs.
    """

    conn: ConnectionId
    role: Role
    pacing_ms: int | None
    """Audio is released at most so far ahead of its playout clock; None: as it comes."""

    def show(self, epoch: Epoch, first_seq: Seq, facts: Sequence[Fact]) -> None:
        """Render the facts of one step. The frame of the fact with seq s waits for the mark to reach s."""

    def durable(self, mark: Seq) -> None: ...

    def text_delta(self, response: ResponseId, item: ItemId, index: int, text: str, spoken: bool) -> None: ...

    def audio_delta(self, response: ResponseId, item: ItemId, index: int, pcm: bytes) -> None: ...

    def call_delta(
        self, response: ResponseId, item: ItemId, index: int, call_id: CallId, arguments: str, ours: bool
    ) -> None: ...

    def reasoning_delta(self, response: ResponseId, delta: ReasoningDelta) -> None: ...

    def user_partial(self, turn: TurnId, item: ItemId, text: str) -> None: ...

    def transcript_partial(self, turn: TurnId, item: ItemId, text: str) -> None:
        """All of a committed turn's words so far; they are only added to."""

    def error(self, command: str, problem: Problem) -> None: ...

    def receipt(self, command: str, outcome: str) -> None: ...

    def resend_item(self, item: Item, previous: ItemId | None) -> None: ...

    def close(self, code: int, reason: str) -> None: ...
