"""The state as a fold of facts: its bounds, and what a response is given to see."""

from __future__ import annotations

import pytest

from core_call import (
    CONN,
    Call,
    active_id,
    begin_message,
    call_tool,
    end_response,
    finish_reply,
    live_call,
    reply_under_way,
    speak,
)
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.evolve import evolve
from openline.core.history import Entry
from openline.core.model import (
    AudioRange,
    Cut,
    Item,
    Limits,
    Modality,
    Part,
    ResponseRequest,
    SessionConfig,
    ToolSpec,
)
from openline.core.state import SETTLED_TOOLS_MAX, TOKENS_MAX, Connection, Link, State
from openline.types import CallId, ConnectionId, ItemId, Now, Seq

HINT = Item(ItemId("hint"), "message", "synthetic", "system", content=(Part("input_text", "Be kind."),))


def attach(call: Call, token: str, replaces: str = "") -> None:
    conn = ConnectionId(f"conn_{len(call.log)}")
    call.give(i.Attach(conn, "observer", token_hash=token, replaces=replaces))


def test_a_resume_token_is_spent_when_its_successor_is_shown() -> None:
    """Not before: a client that was cut while it got the new one still has only the old one."""
    call = live_call()
    tokens, predecessors = call.session.state.tokens, call.session.state.predecessors
    assert tokens == {"hash_1": "speaker"}
    attach(call, "hash_2", "hash_1")
    attach(call, "hash_3", "hash_1")
    assert set(tokens) == {"hash_1", "hash_2", "hash_3"}
    attach(call, "hash_4", "hash_3")
    assert set(tokens) == {"hash_2", "hash_3", "hash_4"}
    attach(call, "", "hash_4")
    assert set(tokens) == {"hash_2", "hash_4"}
    attach(call, "hash_5", "never_given")
    assert predecessors == {"hash_2": "hash_1", "hash_4": "hash_3"}
    call.give(i.EndSession("api"))
    assert not tokens
    assert not predecessors


def test_resume_tokens_are_bounded() -> None:
    call = live_call()
    attach(call, "hash_2", "hash_1")
    for number in range(TOKENS_MAX):
        attach(call, f"other_{number}")
    assert list(call.session.state.tokens) == [f"other_{number}" for number in range(TOKENS_MAX)]
    assert not call.session.state.predecessors
    assert TOKENS_MAX == 16


def test_settled_calls_are_remembered_and_bounded_and_open_ones_are_all_kept() -> None:
    call = live_call(SessionConfig(tools=(ToolSpec("screen"),)))
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    call_tool(call, "screen", "open")
    for number in range(SETTLED_TOOLS_MAX + 2):
        call_tool(call, "screen", f"call_{number}", index=number + 1)
        output = Item(ItemId(""), "function_call_output", "tool", call_id=f"call_{number}", output="8")
        call.give(i.CreateItem(output, None, CONN))
    tools = call.session.state.tools
    assert SETTLED_TOOLS_MAX == 64
    assert len(tools) == SETTLED_TOOLS_MAX + 1
    assert CallId("open") in tools and CallId("call_1") not in tools and CallId("call_2") in tools
    assert [call.session.state.is_call(CallId(f"call_{number}")) for number in (0, 1, 2, 66)] == [
        True,
        True,
        True,
        False,
    ]


def test_many_open_calls_do_not_push_settled_ones_out() -> None:
    call = live_call(SessionConfig(tools=(ToolSpec("screen"),)))
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    for number in range(SETTLED_TOOLS_MAX + 2):
        call_tool(call, "screen", f"call_{number}", index=number)
    for number in (3, 5):
        output = Item(ItemId(""), "function_call_output", "tool", call_id=f"call_{number}", output="8")
        call.give(i.CreateItem(output, None, CONN))
    assert len(call.session.state.tools) == SETTLED_TOOLS_MAX + 2


def test_what_is_known_before_the_first_fact() -> None:
    """Nothing is there, and whoever reads a session too early is told so rather than something wrong."""
    fresh = State()
    assert (fresh.session, fresh.tenant, fresh.node, fresh.epoch, fresh.seq) == ("", "default", "", 0, 0)
    assert (fresh.status, fresh.config, fresh.limits) == ("new", SessionConfig(), Limits())
    assert (fresh.prepares_replies, fresh.is_recorded, fresh.has_spoken) == (False, True, False)
    assert (fresh.created_ms, fresh.quiet_since_ns, fresh.parked_until_ms) == (0, 0, 0)
    assert (fresh.idle_turns, fresh.tool_replies, fresh.turns) == (0, 0, 0)
    assert fresh.link == Link(0, "closed", 0, False, "", "", 0, set())


def test_a_reply_is_whole_unless_its_end_says_otherwise() -> None:
    call, response = reply_under_way()
    assert call.session.state.responses[response].reason == "completed"


# ---------------------------------------------------------------------------------------------------- context


def test_a_response_sees_the_conversation_without_its_own_items_and_with_what_agent_code_adds() -> None:
    call = live_call()
    speak(call, "what time is it")
    begin_message(call)
    response = call.session.state.responses[active_id(call)]
    assert [item.text for item in call.session.state.context(response)] == ["what time is it"]
    call.give(i.MessageFinished(response.response_id, 0, "It is noon.", 900))
    assert [item.text for item in call.session.state.context(response)] == ["what time is it"]
    end_response(call)
    call.give(i.CreateResponse(ResponseRequest(context=(HINT,), origin="agent")))
    later = call.session.state.responses[active_id(call)]
    assert [item.text for item in call.session.state.context(later)] == [
        "what time is it", "It is noon.", "Be kind.",
    ]  # fmt: skip


def test_a_response_with_its_own_input_sees_that_and_nothing_else() -> None:
    call = live_call()
    speak(call, "what time is it")
    begin_message(call)
    finish_reply(call)
    own = Item(ItemId("own"), "message", "user", "user", content=(Part("input_text", "greet"),))
    for given in ((own,), ()):
        request = ResponseRequest(conversation="none", has_input=True, input=given, context=(HINT,))
        call.give(i.CreateResponse(request, CONN))
        response = list(call.session.state.responses.values())[-1]
        assert call.session.state.context(response) == (*given, HINT)


@pytest.mark.parametrize(
    ("heard", "text", "status"),
    [
        (None, "Once upon a time", "completed"),
        (16, "Once upon a time", "completed"),
        (15, "Once upon a tim", "incomplete"),
        (0, "", "incomplete"),
    ],
)
def test_an_entry_as_it_was_heard(heard: int | None, text: str, status: str) -> None:
    spoken = Item(
        ItemId("item_1"),
        "message",
        "assistant",
        "assistant",
        content=(Part("output_audio", "Once upon a time"),),
    )
    entry = Entry(spoken, 4_000, 1_000, heard, "paced")
    assert (entry.as_heard().text, entry.as_heard().status) == (text, status)
    assert entry.as_heard().heard_ms == (1_000 if status == "incomplete" else None)


def test_an_entry_without_words_is_heard_as_it_is() -> None:
    silent = Item(ItemId("item_1"), "message", "user", "user", content=(Part("input_audio"),))
    call = Item(ItemId("item_2"), "function_call", "assistant", call_id="c1")
    assert Entry(silent, text_end=0).as_heard() == silent
    assert Entry(call, text_end=0).as_heard() == call


def test_a_tool_is_looked_up_where_the_response_declares_it() -> None:
    session_tool, own_tool = ToolSpec("clock"), ToolSpec("clock", runner="gateway")
    state = State(config=SessionConfig(tools=(session_tool,)))
    assert state.tool_spec("clock") == session_tool
    assert state.tool_spec("clock", ResponseRequest()) == session_tool
    assert state.tool_spec("clock", ResponseRequest(tools=(own_tool,))) == own_tool
    assert state.tool_spec("clock", ResponseRequest(tools=())) is None
    assert state.tool_spec("screen") is None


# ------------------------------------------------------------------------------------------------ was it heard


def is_heard(call: Call) -> bool:
    return call.session.state.responses[active_id(call)].was_heard


@pytest.mark.parametrize(
    ("modality", "heard_ms", "heard"), [("audio", 0, False), ("audio", 1, True), ("text", 0, True)]
)
def test_what_makes_a_reply_heard(modality: Modality, heard_ms: int, heard: bool) -> None:
    """Audio that was played, and text as soon as it is shown."""
    call = live_call(SessionConfig(modality=modality))
    speak(call, "what time is it")
    assert not is_heard(call)
    item = begin_message(call)
    assert not is_heard(call)
    call.give(i.MessageProgress(active_id(call), 0, Cut(item, "It is", 900, heard_ms, "paced")))
    assert is_heard(call) == heard


def speaker_of(call: Call) -> Connection | None:
    return call.session.state.speaker


def test_the_speaker_is_the_connection_that_speaks() -> None:
    call = live_call()
    call.give(i.Attach(ConnectionId("desk"), "texter"))
    assert speaker_of(call) is call.session.state.connections[CONN]
    call.give(i.Detach(CONN))
    assert speaker_of(call) is None
    assert call.session.state.has_talker is True
    assert call.session.state.status == "live"


def test_numbers_of_the_session_that_facts_count() -> None:
    call = live_call(SessionConfig(turn_detection=None))
    assert call.session.state.turns == 0
    call.give(i.CommitAudio(AudioRange(0, 24_000), CONN))
    assert call.session.state.turns == 1


def test_an_item_that_is_not_in_the_conversation_has_no_place_in_it() -> None:
    with pytest.raises(AssertionError, match="expected an item of the conversation, got 'item_9'"):
        State().previous_of(ItemId("item_9"))


def test_who_only_watches_does_not_talk() -> None:
    call = live_call()
    call.give(i.Attach(ConnectionId("screen"), "observer"))
    call.give(i.Detach(CONN))
    assert call.session.state.has_talker is False


# ------------------------------------------------------------------------------------------------ facts that pass


@pytest.mark.parametrize(
    "fact",
    [
        f.SegmentRecorded("input", 0, 24_000, "input-0.opus", "00"),
        f.MediaDropped("playout", 20, "oldest"),
        f.SilenceExceeded(None, 8_000, "give_up"),
    ],
)
def test_what_only_tells_of_media_and_of_waiting_has_its_place_and_no_other_effect(fact: f.Fact) -> None:
    state = State()
    evolve(state, fact, Now(5, 5))
    assert state == State(seq=Seq(1))
