"""The invariants of a session, checked after every step from its facts alone (DESIGN §4).

The watch keeps its own small account of turns, responses, calls and the conversation, written without the
core's code, so that the two can disagree.
"""

from __future__ import annotations

from openline.core import effects as e
from openline.core import facts as f
from openline.core.model import HEARD_RANK, Item, ResponseRequest
from openline.core.responses import HELD_MAX, OUT_OF_BAND_MAX, TOOL_REPLIES_MAX
from openline.core.session import Step
from openline.core.state import COMMANDS_MAX, SETTLED_TOOLS_MAX, TOKENS_MAX, Response, State
from openline.core.value import replace
from openline.types import CallId, ConnectionId, ItemId, Now, ResponseId, Seq, TurnId
from openline.wire.render import MAX_FRAMES, View, render

AFTER_THE_END = (
    f.ToolStarted,
    f.ToolSettled,
    f.SessionOwned,
    f.ItemHeard,
    f.SegmentRecorded,
    f.MediaDropped,
)
"""What may still be said of a session that has ended: of tools that still run, of their outcomes, and bookkeeping."""
AUTHORS = {"user": {"user"}, "assistant": {"assistant", "synthetic"}, "system": {"system", "synthetic"}}


class Watch:
    def __init__(self) -> None:
        self.seq = 0
        self.epoch = 0
        self.is_ended = False
        self.turns: dict[TurnId, str] = {}
        self.responses: dict[ResponseId, str] = {}
        self.outputs: dict[tuple[ResponseId, int], str] = {}
        self.made_by: dict[ItemId, ResponseId] = {}
        self.begun: dict[ItemId, list[str]] = {}
        self.calls: dict[CallId, str] = {}
        self.order: list[ItemId] = []
        self.forked_after: ItemId | None = None
        self.items: dict[ItemId, Item] = {}
        self.heard: dict[ItemId, f.ItemHeard] = {}
        self.asked: dict[ResponseId, int] = {}
        """Link epoch under which a response was last asked for."""
        self.owes: str = ""
        """What the user waits to hear of: a spoken turn, or a tool's result; "" when it was answered."""

    # -- one step

    def see(self, state: State, step: Step, now: Now) -> None:
        assert step.first_seq == self.seq + 1, f"expected seq {self.seq + 1} next, got {step.first_seq}"
        assert not (step.is_rejected and step.facts), "what was refused has not happened"
        for fact in step.facts:
            self.take(fact)
        assert state.seq == self.seq == step.last_seq, "one seq for each fact"
        for effect in step.effects:
            self.check_effect(state, step, effect)
        self.check_link(state, step)
        self.check_state(state)
        self.check_answered(state)
        self.check_context(state)
        self.check_waits(state, step, now)
        self.check_frames(state, step)

    def take(self, fact: f.Fact) -> None:
        self.seq += 1
        self.note_owed(fact)
        assert not self.is_ended or isinstance(fact, AFTER_THE_END), f"{fact.TYPE} after the session's end"
        match fact:
            case f.SessionForked():
                assert self.seq == 2, "a fork says so right after its start"
                self.forked_after = fact.last_item
            case f.SessionOwned():
                assert fact.epoch > self.epoch, "epochs never go back"
                self.epoch = fact.epoch
                self.asked.clear()
            case f.SessionEnded() | f.SessionParked():
                open_ones = self.open_ones()
                assert not open_ones, f"{open_ones} left open at {fact.TYPE}"
                self.is_ended = isinstance(fact, f.SessionEnded)
                waits = [call for call, phase in self.calls.items() if phase == "requested"]
                assert not (self.is_ended and waits), f"{waits} have no outcome at the session's end"
            case f.SpeechStarted() | f.SpeechStopped() | f.TurnCommitted() | f.TurnAbandoned():
                self.take_turn(fact)
            case f.TurnContinued():
                assert self.turns[fact.turn_id] == "speaking", "only who still speaks is heard again"
            case f.ToolRequested() | f.ToolStarted() | f.ToolSettled():
                self.take_call(fact)
            case f.ItemCreated() | f.ItemDeleted() | f.ItemHeard() | f.TurnTranscribed():
                self.take_item(fact)
            case _:
                self.take_response(fact)

    def note_owed(self, fact: f.Fact) -> None:
        match fact:
            case f.ToolSettled(item=item) if item is not None:
                self.owes = fact.call_id
            case f.TurnCommitted(prepares=True):
                self.owes = fact.turn_id
            case f.ResponseCreated(request=request) if request.conversation == "auto":
                self.owes = ""
            case f.ResponseDone(reason="client_cancelled") | f.ReplyDropped() | f.TurnCommitted():
                self.owes = ""
            case f.LinkLost(permanent=True) | f.SessionParked():
                self.owes = ""
            case _:
                pass

    def open_ones(self) -> list[str]:
        tables: tuple[dict[TurnId, str] | dict[ResponseId, str], ...] = (self.turns, self.responses)
        return [key for table in tables for key, phase in table.items() if phase != "done"]

    # -- who spoke, what was said

    def take_turn(self, fact: f.SpeechStarted | f.SpeechStopped | f.TurnCommitted | f.TurnAbandoned) -> None:
        before = self.turns.get(fact.turn_id)
        assert before != "done", f"{fact.TYPE} for {fact.turn_id} after its terminal"
        match fact:
            case f.SpeechStarted():
                assert before is None
                self.turns[fact.turn_id] = "speaking"
            case f.SpeechStopped():
                assert before == "speaking"
                self.turns[fact.turn_id] = "deciding"
            case f.TurnAbandoned():
                assert before in ("speaking", "deciding")
                self.turns[fact.turn_id] = "done"
            case f.TurnCommitted():
                assert before in (None, "deciding"), "speech ends before its turn is committed"
                self.turns[fact.turn_id] = "done"
                assert (fact.item is None) == bool(fact.text_items), "a turn is spoken or typed"
                if fact.item is not None:
                    self.put(fact.item, fact.previous_item_id)

    def put(self, item: Item, previous: ItemId | None) -> None:
        assert item.id not in self.items, f"{item.id} names two items"
        if item.role:
            assert item.author in AUTHORS[item.role], f"a {item.role} item by {item.author}"
        self.items[item.id] = item
        is_first = previous == self.forked_after
        self.order.insert(0 if is_first else self.order.index(previous) + 1 if previous else 0, item.id)

    def take_item(self, fact: f.ItemCreated | f.ItemDeleted | f.ItemHeard | f.TurnTranscribed) -> None:
        match fact:
            case f.ItemCreated():
                self.put(fact.item, fact.previous_item_id)
            case f.ItemDeleted():
                del self.items[fact.item_id]
                self.heard.pop(fact.item_id, None)
                self.order.remove(fact.item_id)
            case f.ItemHeard():
                before = self.heard.get(fact.item_id)
                assert before is None or HEARD_RANK[fact.source] >= HEARD_RANK[before.source]
                assert 0 <= fact.text_end <= len(self.items[fact.item_id].text)
                assert 0 <= fact.audio_end_ms
                self.heard[fact.item_id] = fact
            case f.TurnTranscribed():
                if fact.item_id in self.items:
                    self.items[fact.item_id] = with_text(self.items[fact.item_id], fact.text)

    def take_response(self, fact: f.Fact) -> None:
        match fact:
            case f.ResponseCreated():
                assert fact.response_id not in self.responses
                self.responses[fact.response_id] = "active"
            case f.OutputItemAdded(response_id=response_id, output_index=index, item=item):
                assert self.responses[response_id] == "active", "no content after nothing more will come"
                assert (response_id, index) not in self.outputs
                self.outputs[response_id, index] = "open"
                self.made_by[item.id] = response_id
                self.begun[item.id] = [part.type for part in item.content]
                if fact.is_in_conversation:
                    self.put(item, fact.previous_item_id)
            case f.OutputItemProgressed():
                assert self.responses[self.made_by[fact.item_id]] != "done", "no content after the terminal"
            case f.OutputItemDone(response_id=response_id, output_index=index, item=item):
                assert self.responses[response_id] != "done", "no content after the terminal"
                assert self.outputs[response_id, index] == "open", "an item ends once"
                parts = [part.type for part in item.content]
                assert parts == self.begun.pop(item.id), "an item ends with the parts that it was begun with"
                self.outputs[response_id, index] = "done"
                if item.id in self.items:
                    self.items[item.id] = item
            case f.ResponseGenerated():
                assert self.responses[fact.response_id] == "active"
                self.responses[fact.response_id] = "generated"
            case f.ResponseDone():
                assert self.responses[fact.response_id] != "done", "one terminal for a response"
                mine = [phase for (owner, _), phase in self.outputs.items() if owner == fact.response_id]
                assert "open" not in mine, "items end before their response"
                assert len(fact.output) == len(mine)
                self.responses[fact.response_id] = "done"
            case _:
                pass

    def take_call(self, fact: f.ToolRequested | f.ToolStarted | f.ToolSettled) -> None:
        before = self.calls.get(fact.call_id)
        match fact:
            case f.ToolRequested():
                assert before is None, f"{fact.call_id} is requested twice"
                self.calls[fact.call_id] = "requested" if fact.runner == "client" else "owed"
            case f.ToolStarted():
                assert before in ("owed", "started"), "started after it was requested, by us"
                assert fact.epoch == self.epoch
                self.calls[fact.call_id] = "started"
            case f.ToolSettled():
                assert before in ("requested", "started"), "one outcome for a call"
                self.calls[fact.call_id] = "settled"
                if fact.item is not None and fact.item.id in self.items:
                    self.items[fact.item.id] = fact.item

    # -- the state after it

    def check_effect(self, state: State, step: Step, effect: e.Effect) -> None:
        assert step.facts or effect.KIND != "durable", "a durable effect has its fact in the log"
        match effect:
            case e.StartResponse(response_id):
                response = state.responses[response_id]
                assert state.link.phase == "open" and not response.waits, "asked of a link that is there"
                again = self.asked.get(response_id) == state.link.epoch
                assert not again or response.attempt == 2, "asked once of a link, and once more in silence"
                self.asked[response_id] = state.link.epoch
            case e.RunTool(call_id, attempt, key):
                call = state.tools[call_id]
                assert (call.phase, call.attempt, call.key) == ("started", attempt, key)
            case e.HearAgain(item_id, start):
                turn = state.turn
                assert turn is not None and (turn.item_id, turn.start) == (item_id, start)
                assert state.speaks_unheard, "given again to a link that has not heard it"
            case e.OpenLink(link_epoch):
                assert state.link.epoch == link_epoch and state.link.phase == "opening"
            case _:
                pass

    def check_link(self, state: State, step: Step) -> None:
        """A link that opens is asked for all that has no text: its host gives it nothing else before."""
        if any(isinstance(fact, f.LinkOpened) for fact in step.facts):
            asked = [effect.item_id for effect in step.effects if isinstance(effect, e.TranscribeAudio)]
            assert tuple(asked) == state.to_recognize

    def check_state(self, state: State) -> None:
        default = [r for r in state.responses.values() if r.is_default]
        assert len(default) <= 1, "one active response writes to the conversation"
        assert len(state.responses) - len(default) <= OUT_OF_BAND_MAX
        assert set(state.responses) == {r for r, phase in self.responses.items() if phase != "done"}
        assert sum(c.role == "speaker" for c in state.connections.values()) <= 1, "one speaker"
        talks = any(c.role != "observer" for c in state.connections.values())
        assert talks == (state.status == "live"), f"{state.status} with talkers: {talks}"
        assert len(state.held) <= HELD_MAX + 2, "plus a reply to tools and one owed again"
        is_free = (state.active, state.turn, state.preparing) == (None, None, None) and state.has_talker
        assert not (state.held and is_free), "what was held begins when the conversation is free"
        assert len(state.tokens) <= TOKENS_MAX and len(state.commands) <= COMMANDS_MAX
        assert sum(c.phase == "settled" for c in state.tools.values()) <= SETTLED_TOOLS_MAX
        if state.status in ("parked", "ended"):
            assert state.link.phase == "closed" and not state.responses and state.turn is None
            assert not state.untranscribed
        if state.status == "ended":
            assert not state.connections and not state.tokens and not state.held

    def check_answered(self, state: State) -> None:
        """With a talker, a link and nothing under way, nobody waits for a word that will not come."""
        busy = state.turn or state.active or state.preparing or state.held or state.untranscribed
        if state.has_talker and state.link.phase == "open" and not busy:
            if state.tool_replies < TOOL_REPLIES_MAX and not any(
                call.phase == "started" for call in state.tools.values()
            ):
                assert not self.owes, f"{self.owes} gets no answer"

    def check_context(self, state: State) -> None:
        """What a reply would see is what was heard, from the facts' own account."""
        expected = [(item.id, item.text, item.author) for item in state.inherited]
        for item_id in self.order:
            item = self.items[item_id]
            text = item.text
            if (heard := self.heard.get(item_id)) is not None:
                text = text[: heard.text_end]
            is_shown = item.status == "completed" or (item.type, item.status) == ("message", "incomplete")
            if is_shown:
                expected.append((item_id, text, item.author))
        asked = ResponseRequest()
        fresh = Response(ResponseId("resp_x"), asked, "audio", "", None, None, 1, 0, False, "active", "pcm")
        assert [(i.id, i.text, i.author) for i in state.context(fresh)] == expected

    def check_waits(self, state: State, step: Step, now: Now) -> None:
        if state.status in ("new", "ended"):
            assert step.wake_at is None, "nothing is left to wait for"
            return
        waits = bool(state.responses or state.untranscribed or state.preparing or state.status != "live")
        waits = waits or (state.turn is not None and state.turn.phase == "deciding")
        waits = waits or state.speaks_unheard
        assert not waits or step.wake_at is not None, "every wait has a deadline"
        if state.status == "parked":
            assert step.durable_wake_ms > 0, "a parked session is woken also after a restart"
        else:
            assert step.durable_wake_ms == 0

    def check_frames(self, state: State, step: Step) -> None:
        for offset, fact in enumerate(step.facts):
            for opted_in in (False, True):
                view = View(opted_in, ConnectionId("c1"), "speaker", strict=False, session=state.session)
                frames = render(fact, epoch=state.epoch, seq=Seq(step.first_seq + offset), view=view)
                assert all(0 <= n < MAX_FRAMES for n, _ in frames)


def with_text(item: Item, text: str) -> Item:
    return replace(item, content=(replace(item.content[0], text=text), *item.content[1:]))
