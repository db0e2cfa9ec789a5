"""Any session, whatever happens to it: the invariants hold after every step (tests/core_watch.py).

A seed makes one life of a session from plausible inputs and from those that should not happen but do:
of a dead link, for an unknown id, too late, twice, after the end. In between the process dies, and the
session goes on from its log. One seed again: OPENLINE_SEED=17 pytest tests/properties/test_session_machine.py
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from core_call import Call
from figures import figure, part_counts
from openline.core import history
from openline.core import inputs as i
from openline.core.model import (
    AudioRange,
    Cut,
    HeardSource,
    Item,
    Limits,
    Part,
    Problem,
    ResponseRequest,
    SessionConfig,
    ToolSpec,
    TurnDetection,
    Usage,
)
from openline.core.state import Response, State
from openline.core.value import replace
from openline.types import CallId, ConnectionId, Epoch, ItemId, ResponseId, Role, SessionId, TurnId

INPUTS = 70
"""Inputs of one life: enough for several turns, drops and crashes; replay is quadratic in nothing."""
LIKELY = 0.6
"""Share of inputs that fit the moment; the others are anything."""
CRASH = 0.04
"""Chance of a crash at each step, as in style.md §6.2."""
WORDS = "what time is it please order twelve bolts and tell me a story about the sea".split()
LIMITS = (
    Limits(),
    Limits(park_for_ms=0),
    Limits(resume_window_ms=2_000, silence_budget_ms=1_500, transcription_ms=800, park_for_ms=60_000),
    Limits(detached_reply_ms=400, transcription_ms=2_000),
)
TOOLS = (
    ToolSpec("clock", runner="gateway", recovery="retry"),
    ToolSpec("order", runner="gateway"),
    ToolSpec("screen"),
)


class Life:
    """One seed's session and the dice that decide what happens to it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.call = Call()
        self.conns = 0
        self.commands = 0
        self.samples = 0
        self.told: list[str] = []
        self.deeds: list[tuple[Callable[[], i.Input | None], int]] = [
            (self.attach, 5), (self.detach, 3), (self.link_opened, 12), (self.link_lost, 3), (self.link_renewed, 1),
            (self.speech_started, 9), (self.speech_stopped, 8), (self.turn_final, 10), (self.turn_failed, 2),
            (self.typed, 6), (self.created_again, 2), (self.deleted, 3), (self.truncated, 4),
            (self.committed, 3), (self.cleared, 1), (self.asked, 7), (self.cancelled, 3),
            (self.message_started, 10), (self.progressed, 8), (self.message_finished, 9),
            (self.call_started, 6), (self.call_finished, 6), (self.generated, 8), (self.released, 8),
            (self.failed, 1), (self.heard, 6), (self.tool_settled, 8), (self.prepared, 4),
            (self.configured, 2), (self.noted, 1), (self.ended, 1),
        ]  # fmt: skip

    def live(self) -> None:
        call, dice = self.call, self.dice
        self.give(self.opening())
        for _ in range(INPUTS):
            if dice.random() < CRASH:
                self.told.append("crash")
                recorded = dice.choice((0, self.samples, self.samples // 2))
                call.crash(recorded, down_ms=dice.choice((0, 300, 40_000)))
                continue
            if dice.random() < 0.25:
                ms = dice.choice((1, 20, 300, 900, 2_500, 9_000, 31_000))
                self.told.append(f"advance {ms}")
                call.advance(ms)
            given = (self.likely() if dice.random() < LIKELY else self.any_deed())()
            if given is not None:
                self.give(given)
        call.forget()
        call.advance(8 * 24 * 3_600_000)
        call.check_replay()

    def any_deed(self) -> Callable[[], i.Input | None]:
        return self.dice.choices([deed for deed, _ in self.deeds], [weight for _, weight in self.deeds])[0]

    def likely(self) -> Callable[[], i.Input | None]:
        """What a conversation in this state would bring next."""
        state = self.state
        if not state.has_talker:
            return self.attach
        if state.link.phase == "opening":
            return self.link_opened
        choices: list[Callable[[], i.Input | None]] = []
        if state.turn is not None:
            choices += [self.speech_stopped if state.turn.phase == "speaking" else self.turn_final] * 3
        if state.untranscribed:
            choices.append(self.turn_final)
        if state.preparing is not None:
            choices.append(self.prepared)
        for response in state.responses.values():
            choices += self.next_of(response)
        if any(call.phase == "started" for call in state.tools.values()):
            choices.append(self.tool_settled)
        return self.dice.choice(choices or [self.speech_started, self.typed, self.asked])

    def next_of(self, response: Response) -> list[Callable[[], i.Input | None]]:
        if response.phase == "generated":
            return [self.released, self.heard, self.message_finished, self.speech_started]
        kinds = {output.kind for output in response.outputs.values() if output.phase == "open"}
        if "message" in kinds:
            return [self.progressed, self.message_finished, self.generated, self.speech_started]
        if "call" in kinds:
            return [self.call_finished, self.call_finished, self.call_started]
        if response.outputs:
            return [self.generated, self.call_started, self.message_started]
        return [self.message_started, self.call_started]

    def give(self, given: i.Input) -> None:
        self.told.append(repr(given))
        self.call.give(given)

    # -- pieces

    @property
    def state(self) -> State:
        return self.call.session.state

    def mostly(self, likely: bool = True, chance: float = 0.9) -> bool:
        return likely if self.dice.random() < chance else not likely

    def link_epoch(self) -> int:
        return self.state.link.epoch if self.mostly() else self.state.link.epoch - 1

    def conn(self) -> ConnectionId:
        known = list(self.state.connections)
        if known and self.mostly():
            return self.dice.choice(known)
        return ConnectionId(self.dice.choice(("", "conn_gone")))

    def client(self) -> ConnectionId:
        """For what only clients can do; agent code has no name."""
        return self.conn() or ConnectionId("conn_gone")

    def command(self) -> str:
        self.commands += 1
        return f"cmd_{self.commands}" if self.mostly(chance=0.5) else ""

    def words(self) -> str:
        if self.dice.random() < 0.1:
            return ""
        return " ".join(self.dice.choices(WORDS, k=self.dice.randint(1, 9)))

    def item_id(self) -> ItemId:
        known = list(self.state.entries)
        if known and self.mostly():
            return self.dice.choice(known)
        return ItemId("item_unknown")

    def response(self) -> Response | None:
        known = list(self.state.responses.values())
        return self.dice.choice(known) if known else None

    def response_id(self) -> ResponseId:
        response = self.response()
        if response is not None and self.mostly():
            return response.response_id
        return self.dice.choice([*self.call.watch.responses, ResponseId("resp_unknown")])

    def output_index(self, response_id: ResponseId) -> int:
        response = self.state.responses.get(response_id)
        known = list(response.outputs) if response is not None else []
        return self.dice.choice(known) if known and self.mostly() else self.dice.randint(0, 3)

    def cut(self, item_id: ItemId) -> Cut:
        text = self.words()
        audio_ms = self.dice.choice((0, 400, 2_000, 6_000))
        heard_ms = self.dice.choice((0, 1, 300, audio_ms, audio_ms + 50))
        source: HeardSource = self.dice.choice(("assumed", "paced", "reported"))
        text_end = self.dice.choice((None, 0, 5, len(text)))
        return Cut(item_id, text, audio_ms, heard_ms, source, text_end)

    def cuts(self) -> tuple[Cut, ...]:
        response = self.state.active
        spoken = [o.item_id for o in response.outputs.values() if o.kind == "message"] if response else []
        assistant = [entry.item.id for entry in self.state.entries.values() if entry.item.role == "assistant"]
        chosen = [*spoken, *(assistant[-1:] if self.dice.random() < 0.5 else [])]
        return (
            tuple(self.cut(item_id) for item_id in dict.fromkeys(chosen)) if self.mostly(chance=0.7) else ()
        )

    def request(self, origin: str) -> ResponseRequest:
        return ResponseRequest(
            conversation="none" if self.dice.random() < 0.2 else "auto",
            modality=self.dice.choice((None, "text")),
            verbatim=self.dice.choice((None, None, "One moment.")),
            tools=self.dice.choice((None, None, TOOLS[1:])),
            metadata=self.dice.choice(((), (("k", "v"),))),
            has_input=self.dice.random() < 0.1,
            origin="agent" if origin == "agent" else "client",
        )

    def audio(self) -> AudioRange:
        start = self.state.turn.start if self.state.turn else self.samples
        self.samples += self.dice.choice((0, 1_200, 24_000, 72_000))
        return AudioRange(start, max(start, self.samples))

    # -- what may happen

    def opening(self) -> i.Input:
        detection = self.dice.choice((TurnDetection(), TurnDetection(), None, TurnDetection(
            create_response=self.mostly(), interrupt_response=self.mostly(chance=0.5),
            idle_timeout_ms=self.dice.choice((None, 2_000)))))  # fmt: skip
        config = SessionConfig(
            modality=self.dice.choice(("audio", "audio", "text")),
            tools=TOOLS,
            turn_detection=detection,
            purpose="transcription" if self.dice.random() < 0.1 else "realtime",
        )
        prepares = self.dice.random() < 0.4
        return i.OpenSession(
            SessionId("sess_property"),
            "default",
            Epoch(1),
            "node-a",
            config,
            self.dice.choice(LIMITS),
            prepares,
        )

    def attach(self) -> i.Input:
        self.conns += 1
        role: Role = self.dice.choice(("speaker", "speaker", "texter", "observer"))
        known = list(self.state.tokens)
        replaces = self.dice.choice(known) if known and self.mostly(chance=0.5) else ""
        opted_in = self.mostly(chance=0.5)
        return i.Attach(
            ConnectionId(f"conn_{self.conns}"), role, opted_in, self.mostly(chance=0.3), self.mostly(chance=0.6),
            token_hash=f"hash_{self.conns}", replaces=replaces,
        )  # fmt: skip

    def detach(self) -> i.Input:
        clean = self.dice.random() < 0.4
        return i.Detach(self.conn(), 1000 if clean else 1006, clean, self.cuts())

    def link_opened(self) -> i.Input:
        return i.LinkOpened(self.link_epoch(), "embedded", hears=self.dice.random() < 0.3)

    def link_lost(self) -> i.Input:
        why = self.dice.choice(("", "stalled"))
        return i.LinkLost(self.link_epoch(), "link_unavailable", self.dice.random() < 0.2, self.cuts(), why)

    def link_renewed(self) -> i.Input:
        return i.LinkRenewed(self.link_epoch(), "age")

    def speech_started(self) -> i.Input:
        self.samples += 2_400
        return i.SpeechStarted(self.link_epoch(), self.samples, self.cuts())

    def speech_stopped(self) -> i.Input:
        self.samples += 24_000
        return i.SpeechStopped(self.link_epoch(), self.samples)

    def waiting_item(self) -> ItemId | None:
        waiting = [*self.state.untranscribed, None, None]
        return self.dice.choice(waiting) if self.mostly() else self.item_id()

    def turn_final(self) -> i.Input:
        item_id = self.waiting_item()
        follows = item_id is None and self.state.link.hears and self.mostly(chance=0.7)
        text = None if follows else self.words()
        return i.TurnFinal(self.link_epoch(), text, 0.8, self.audio(), item_id)

    def turn_failed(self) -> i.Input:
        return i.TurnFailed(self.link_epoch(), "speech_failed", self.waiting_item())

    def typed(self) -> i.Input:
        item = Item(ItemId(""), "message", "user", "user", content=(Part("input_text", self.words()),))
        if self.dice.random() < 0.3:
            call_id = self.dice.choice([*self.state.tools, CallId("call_unknown")])
            item = Item(ItemId(""), "function_call_output", "tool", call_id=call_id, output="8")
        previous = self.dice.choice((None, None, "root", self.item_id()))
        return i.CreateItem(item, previous, self.conn(), self.command())

    def created_again(self) -> i.Input:
        """Also ids that are ours and not yet, or no longer, in the conversation."""
        turn = self.state.turn
        taken = [self.item_id(), *self.state.untranscribed, *([turn.item_id] if turn else [])]
        content = (Part("input_text", self.words()),)
        item = Item(self.dice.choice(taken), "message", "user", "user", content=content)
        return i.CreateItem(item, None, self.conn(), self.command())

    def deleted(self) -> i.Input:
        return i.DeleteItem(self.item_id(), self.conn(), self.command())

    def truncated(self) -> i.Input:
        return i.TruncateItem(
            self.item_id(), 0, self.dice.choice((0, 250, 9_000)), self.conn(), self.command()
        )

    def committed(self) -> i.Input:
        return i.CommitAudio(self.audio(), self.client(), self.command())

    def cleared(self) -> i.Input:
        return i.ClearAudio(self.client(), self.command())

    def asked(self) -> i.Input:
        conn = self.conn()
        return i.CreateResponse(self.request("client" if conn else "agent"), conn, self.command())

    def cancelled(self) -> i.Input:
        which = None if self.mostly(chance=0.6) else self.response_id()
        return i.CancelResponse(which, self.cuts(), "client_cancelled", self.conn(), self.command())

    def message_started(self) -> i.Input:
        response_id = self.response_id()
        index = self.dice.randint(0, 2)
        thoughts = ('{"id":"rs_1"}',) if index else ()
        return i.MessageStarted(self.link_epoch(), response_id, index, index == 2, thoughts)

    def progressed(self) -> i.Input:
        response_id = self.response_id()
        index = self.output_index(response_id)
        response = self.state.responses.get(response_id)
        output = response.outputs.get(index) if response is not None else None
        cut = self.cut(output.item_id if output is not None else ItemId("item_unknown"))
        return i.MessageProgress(response_id, index, cut)

    def message_finished(self) -> i.Input:
        response_id = self.response_id()
        return i.MessageFinished(response_id, self.output_index(response_id), self.words(), 2_000)

    def call_started(self) -> i.Input:
        call_id = CallId(self.dice.choice((f"call_{self.dice.randint(1, 6)}", "call_same")))
        name = self.dice.choice(("clock", "order", "screen", "nobody_knows"))
        return i.CallStarted(self.link_epoch(), self.response_id(), self.dice.randint(0, 3), call_id, name)

    def call_finished(self) -> i.Input:
        response_id = self.response_id()
        return i.CallFinished(self.link_epoch(), response_id, self.output_index(response_id), '{"count":12}')

    def generated(self) -> i.Input:
        reason = self.dice.choice(("completed", "completed", "max_output_tokens"))
        is_released = self.dice.random() < 0.3
        return i.ResponseGenerated(self.link_epoch(), self.response_id(), Usage(3, 5), reason, is_released)

    def released(self) -> i.Input:
        return i.ResponseReleased(self.response_id())

    def failed(self) -> i.Input:
        problem = Problem("server_error", "The model could not finish.", "server_error")
        return i.ResponseFailed(self.link_epoch(), self.response_id(), problem, self.cuts())

    def heard(self) -> i.Input:
        return i.Heard(self.cut(self.item_id()))

    def tool_settled(self) -> i.Input:
        known = list(self.state.tools.values())
        if not known or not self.mostly():
            return i.ToolSettled(CallId("call_unknown"), 1, "succeeded", "8")
        call = self.dice.choice(known)
        attempt = call.attempt if self.mostly() else call.attempt + 1
        return i.ToolSettled(
            call.call_id, attempt, self.dice.choice(("succeeded", "failed", "cancelled")), "8"
        )

    def prepared(self) -> i.Input:
        turn_id = self.state.preparing[0] if self.state.preparing else TurnId("turn_unknown")
        return i.ReplyPrepared(turn_id, ResponseRequest(origin="turn"), drop=self.dice.random() < 0.3)

    def configured(self) -> i.Input:
        config = replace(self.state.config, tools=TOOLS, voice=self.dice.choice(("marin", "cedar")))
        return i.UpdateConfig(config, self.conn(), self.command())

    def noted(self) -> i.Input:
        return self.dice.choice(
            (
                i.SegmentRecorded("caller", 0, 24_000, "caller.flac", "00"),
                i.MediaDropped("playout", 40, "oldest"),
            )
        )

    def ended(self) -> i.Input | None:
        return (
            i.EndSession("client", self.conn(), self.command(), self.cuts())
            if self.mostly(chance=0.3)
            else None
        )


def seeds() -> list[int]:
    if "OPENLINE_SEED" in os.environ:
        return [int(os.environ["OPENLINE_SEED"])]
    return list(range(figure("seeds", 200)))


@pytest.mark.figure_seeds
def test_whatever_happens_the_invariants_hold() -> None:
    """Every seed is one life; the first that breaks a rule is told with what led there."""
    steps = crashes = facts = 0
    for seed in seeds():
        life = Life(seed)
        try:
            life.live()
        except Exception as error:
            story = "\n  ".join(life.told[-12:])
            raise AssertionError(
                f"seed {seed}, input {len(life.told)}: {type(error).__name__}: {error}\n  {story}\n"
                f"again: OPENLINE_SEED={seed} pytest tests/properties/test_session_machine.py"
            ) from error
        steps += len(life.told)
        crashes += life.told.count("crash")
        facts += life.call.watch.seq
    part_counts("seeds", 0, {"seeds": len(seeds()), "inputs": steps, "crashes": crashes, "facts": facts})


PACKING_SEEDS = 40


class Elsewhere:
    """Bytes of blocks that do not lie in memory (``history.Scratch``)."""

    def __init__(self) -> None:
        self.data = bytearray()

    def read(self, at: int, size: int) -> bytes:
        return bytes(self.data[at : at + size])

    def take(self, block: history.Block) -> history.Block:
        at = len(self.data)
        self.data += block.packed.read()
        block.packed.move(self, at)
        return block


@pytest.mark.parametrize(("plain", "block"), [(1, 1), (1, 3), (4, 2)])
def test_what_is_packed_changes_nothing(monkeypatch: pytest.MonkeyPatch, plain: int, block: int) -> None:
    """A life with nearly everything packed, and put elsewhere at once, is that with nothing packed: the same inputs
    offer themselves, and lead to the same facts and effects, through crashes and in replay."""
    pack, elsewhere = history._packed, Elsewhere()
    monkeypatch.setattr(history, "_packed", lambda entries: elsewhere.take(pack(entries)))
    for seed in range(PACKING_SEEDS):
        lives = []
        for limits in ((1_000, 1_000), (plain, block)):
            monkeypatch.setattr(history, "PLAIN_ITEMS", limits[0])
            monkeypatch.setattr(history, "BLOCK_ITEMS", limits[1])
            life = Life(seed)
            life.live()
            lives.append(life)
        whole, packed = lives
        assert packed.told == whole.told, f"seed {seed}"
        assert packed.call.log == whole.call.log, f"seed {seed}"
        assert packed.call.session.state == whole.call.session.state, f"seed {seed}"
