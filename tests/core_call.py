"""A session as a test holds it: its clock, its log as bytes, and a watch that checks every step.

``give`` hands in one input. What is stored goes through the wire's own encoding, as on disk; a crash forgets
everything else. Nothing here waits: time is moved by ``advance``.
"""

from __future__ import annotations

from core_watch import Watch
from openline.core.inputs import (
    Attach,
    CallFinished,
    CallStarted,
    Input,
    LinkOpened,
    MessageFinished,
    MessageStarted,
    OpenSession,
    ResponseGenerated,
    ResponseReleased,
    SpeechStarted,
    SpeechStopped,
    TakeOwnership,
    TimePassed,
    ToolSettled,
    TurnFinal,
)
from openline.core.model import AudioRange, Cut, Limits, ResponseRequest, SessionConfig, ToolSpec, Usage
from openline.core.session import Session, Step
from openline.types import CallId, ConnectionId, Epoch, ItemId, Now, ResponseId, SessionId
from openline.wire.envelope import StoredStep, decode_step, effect_digest, encode_step

WALL_MS = 1_700_000_000_000
"""Wall time of a call's first moment; any will do."""
WAKES_MAX = 200
"""Wake-ups that one advance may bring before it counts as a spin."""


class Call:
    """``ms`` is the time since the call began; ``boot_ns`` is what the monotonic clock showed then."""

    def __init__(self) -> None:
        self.session = Session()
        self.log: list[bytes] = []
        self.watch = Watch()
        self.ms = 0
        self.boot_ns = 50_000_000_000
        self.wake_at: int | None = None

    @property
    def now(self) -> Now:
        return Now(self.boot_ns + self.ms * 1_000_000, WALL_MS + self.ms)

    def give(self, given: Input) -> Step:
        now = self.now
        step = self.session.handle(given, now)
        self.watch.see(self.session.state, step, now)
        if step.facts:
            body = encode_step(given, now, step.facts, step.effects)
            stored = decode_step(body)
            assert stored.input == given, "an input is read back as it was written"
            assert stored.facts == step.facts, "facts are read back as they were written"
            self.log.append(body)
        self.wake_at = step.wake_at
        return step

    def advance(self, ms: int) -> list[Step]:
        """Time passes; the session is woken at every moment that it asked for."""
        target = self.ms + ms
        steps: list[Step] = []
        while (due := self.wake_ms) is not None and due <= target:
            assert len(steps) < WAKES_MAX, f"woken {WAKES_MAX} times within {ms} ms: it spins"
            self.ms = max(self.ms, due)
            steps.append(self.give(TimePassed()))
            later = self.wake_ms
            assert later is None or later > self.ms, "a wake-up must lead to progress"
        self.ms = target
        return steps

    @property
    def wake_ms(self) -> int | None:
        """The moment of the next wake-up in this call's milliseconds, rounded up as a timer does."""
        return None if self.wake_at is None else -((self.boot_ns - self.wake_at) // 1_000_000)

    def crash(self, recorded_until: int = 0, *, down_ms: int = 0) -> Step:
        """The process dies and another, whose monotonic clock shows something else, takes over."""
        self.forget()
        self.ms += down_ms
        self.boot_ns = 90_000_000_000 - self.ms * 1_000_000
        owner = TakeOwnership(Epoch(self.session.state.epoch + 1), "node-b", recorded_until)
        return self.give(owner)

    def forget(self) -> None:
        """Only the log is left; the session made from it must be the one that was."""
        rebuilt = Session.rebuild(self.stored())
        assert rebuilt.state == self.session.state, "the fold of the facts is the state"
        self.session = rebuilt

    def stored(self) -> list[StoredStep]:
        return [decode_step(body) for body in self.log]

    def check_replay(self) -> None:
        """The recorded inputs lead to the same facts, effects and state again."""
        replayed, count = Session.replay(self.stored(), effect_digest)
        assert count == len(self.log)
        assert replayed.state == self.session.state, "a replayed session is the session"


# ------------------------------------------------------------------------------- moves that tests are made of

CONN = ConnectionId("caller")


def live_call(
    config: SessionConfig = SessionConfig(),
    *,
    limits: Limits = Limits(),
    prepares: bool = False,
    opted_in: bool = False,
    strict: bool = False,
    resumable: bool = True,
) -> Call:
    """A call with one speaker and an open link."""
    call = Call()
    call.give(OpenSession(SessionId("sess_test"), "default", Epoch(1), "node-a", config, limits, prepares))
    call.give(Attach(CONN, "speaker", opted_in, strict, resumable, token_hash="hash_1"))
    call.give(LinkOpened(1, "embedded"))
    return call


def speak(call: Call, text: str, *, start: int = 24_000, cuts: tuple[Cut, ...] = ()) -> Step:
    """The caller says something of one second; the step of the turn commit."""
    epoch = call.session.state.link.epoch
    call.give(SpeechStarted(epoch, start, cuts))
    call.give(SpeechStopped(epoch, start + 24_000))
    return call.give(TurnFinal(epoch, text, 0.9, AudioRange(start, start + 24_000)))


def active_id(call: Call) -> ResponseId:
    active = call.session.state.active
    assert active is not None, "no response is active"
    return active.response_id


def begin_message(call: Call, index: int = 0) -> ItemId:
    """The active response begins a message; its item."""
    response = active_id(call)
    call.give(MessageStarted(call.session.state.link.epoch, response, index))
    return call.session.state.responses[response].outputs[index].item_id


def finish_reply(call: Call, text: str = "It is noon.", audio_ms: int = 2_000, index: int = 0) -> Step:
    """The message that was begun is played and its response ends."""
    response = active_id(call)
    call.give(MessageFinished(response, index, text, audio_ms))
    call.give(ResponseGenerated(call.session.state.link.epoch, response, Usage()))
    return call.give(ResponseReleased(response))


def call_tool(call: Call, name: str, call_id: str = "call_1", index: int = 0) -> Step:
    """The active response calls a tool."""
    response, epoch = active_id(call), call.session.state.link.epoch
    call.give(CallStarted(epoch, response, index, CallId(call_id), name))
    return call.give(CallFinished(epoch, response, index, '{"part":"M6"}'))


def end_response(call: Call) -> Step:
    """Nothing more comes for the active response, and all of it was released."""
    response = active_id(call)
    call.give(ResponseGenerated(call.session.state.link.epoch, response, Usage()))
    return call.give(ResponseReleased(response))


def names(step: Step) -> list[str]:
    """The step's facts by name, without our own prefix."""
    return [fact.TYPE.removeprefix("openline.") for fact in step.facts]


def effects(step: Step) -> list[str]:
    return [type(effect).__name__ for effect in step.effects]


TOOLS = (ToolSpec("clock", runner="gateway"), ToolSpec("order", runner="gateway"), ToolSpec("screen"))
WITH_TOOLS = SessionConfig(tools=TOOLS)
SAY = ResponseRequest(verbatim="One moment.", origin="agent")


def settled(call_id: str, attempt: int = 1, output: str = "8") -> ToolSettled:
    return ToolSettled(CallId(call_id), attempt, "succeeded", output)


def reply_under_way() -> tuple[Call, ResponseId]:
    """A reply with a message at 0 and a call at 1, both open."""
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    begin_message(call)
    response = active_id(call)
    call.give(CallStarted(1, response, 1, CallId("call_1"), "clock"))
    return call, response


def finished_reply() -> tuple[Call, ItemId]:
    call = live_call()
    speak(call, "tell me a story")
    item = begin_message(call)
    finish_reply(call, "Once upon a time there was a sailor.", 4_000)
    return call, item
