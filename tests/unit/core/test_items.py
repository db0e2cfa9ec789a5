"""Commands that edit the conversation."""

from __future__ import annotations

import pytest

from core_call import CONN, begin_message, call_tool, finish_reply, live_call, names
from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import AudioRange, Item, Part, Problem, ResponseRequest, SessionConfig, ToolSpec
from openline.types import ConnectionId, ItemId

HELLO = Item(ItemId("item_1"), "message", "user", "user", content=(Part("input_text", "hello"),))


def test_an_id_that_was_told_to_clients_before_its_item_is_taken() -> None:
    """speech_started names the item that the turn will become."""
    call = live_call()
    call.give(i.SpeechStarted(1, 24_000))
    turn = call.session.state.turn
    assert turn is not None
    stolen = Item(turn.item_id, "message", "user", "user", content=HELLO.content)
    step = call.give(i.CreateItem(stolen, None, CONN, "cmd_1"))
    (error,) = step.effects
    assert isinstance(error, e.SendError) and error.problem.code == "item_create_duplicate_item_id"
    committed = call.give(i.TurnFinal(1, "good morning", 0.9, AudioRange(24_000, 48_000)))
    assert "turn.committed" in names(committed)


def test_the_id_of_an_item_that_waits_for_its_words_stays_taken_when_it_is_deleted() -> None:
    call = live_call(SessionConfig(turn_detection=None))
    call.give(i.CommitAudio(AudioRange(0, 24_000), CONN))
    (item_id,) = call.session.state.untranscribed
    call.give(i.DeleteItem(item_id, CONN))
    output = Item(item_id, "function_call_output", "tool", call_id="call_1", output="8")
    assert call.give(i.CreateItem(output, None, CONN)).is_rejected
    assert names(call.give(i.TurnFinal(1, "hello", 0.9, AudioRange(0, 24_000), item_id))) == [
        "turn.transcribed"
    ]


def test_an_id_of_ours_that_a_client_guessed_is_not_given_twice() -> None:
    call = live_call()
    seq = call.session.state.seq
    guessed = Item(ItemId(f"item_esstest{seq + 2:06d}01"), "message", "user", "user", content=HELLO.content)
    call.give(i.CreateItem(guessed, None, CONN))
    call.give(i.CreateItem(Item(ItemId(""), "message", "user", "user", content=HELLO.content), None, CONN))
    first, second = call.session.state.entries
    assert first == guessed.id and second == f"item_esstest{seq + 2:06d}02"


def typed(item_id: str, text: str = "hello") -> Item:
    return Item(ItemId(item_id), "message", "user", "user", content=(Part("input_text", text),))


def test_an_item_goes_first_last_or_after_another() -> None:
    call = live_call()
    for item_id, previous in (("a", None), ("b", None), ("c", "a"), ("d", "root"), ("e", "b")):
        step = call.give(i.CreateItem(typed(item_id), previous, CONN))
        (created,) = step.facts
        assert isinstance(created, f.ItemCreated)
        before = {"a": None, "b": "a", "c": "a", "d": None, "e": "b"}[item_id]
        assert created.previous_item_id == before
        assert step.effects == (e.AddItem(created.item, ItemId(before) if before else None),)
    assert list(call.session.state.entries) == ["d", "a", "c", "b", "e"]


def test_agent_code_that_creates_an_item_twice_is_refused() -> None:
    call = live_call()
    call.give(i.CreateItem(typed("a")))
    step = call.give(i.CreateItem(typed("a")))
    assert (step.is_rejected, step.effects) == (True, ())


def test_an_id_of_another_kind_or_role_is_a_duplicate() -> None:
    call = live_call()
    call.give(i.CreateItem(typed("a"), None, CONN))
    system = Item(ItemId("a"), "message", "system", "system", content=HELLO.content)
    output = Item(ItemId("a"), "function_call_output", "tool", call_id="c1", output="8")
    for other in (system, output):
        (error,) = call.give(i.CreateItem(other, None, CONN, "cmd_1")).effects
        message = "Error adding item: an item with id 'a' already exists in the conversation."
        problem = Problem("item_create_duplicate_item_id", message, param="item.id")
        assert error == e.SendError(CONN, "cmd_1", problem)


def test_only_an_output_settles_a_call() -> None:
    """Stock clients make the call itself again, too, when they reconnect."""
    call = live_call(SessionConfig(tools=(ToolSpec("screen"), ToolSpec("clock", runner="gateway"))))
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    call_tool(call, "screen", "c1")
    call_tool(call, "clock", "c2", index=1)
    again = Item(ItemId("mine"), "function_call", "assistant", call_id="c1", name="screen", arguments="{}")
    assert names(call.give(i.CreateItem(again, None, CONN))) == ["conversation.item.created"]
    ours = Item(ItemId("fake"), "function_call_output", "tool", call_id="c2", output="midnight")
    assert names(call.give(i.CreateItem(ours, None, CONN))) == ["conversation.item.created"]
    output = Item(ItemId("out"), "function_call_output", "tool", call_id="c1", output="shown")
    assert names(call.give(i.CreateItem(output, None, CONN))) == ["conversation.item.created", "tool.settled"]


def test_an_item_that_is_being_made_cannot_be_deleted() -> None:
    call = live_call()
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    item = begin_message(call)
    (error,) = call.give(i.DeleteItem(item, CONN, "cmd_1")).effects
    message = f"Error deleting item: the item with id '{item}' does not exist."
    assert error == e.SendError(
        CONN, "cmd_1", Problem("item_delete_invalid_item_id", message, param="item_id")
    )


# ------------------------------------------------------------------------------------------------- truncation


@pytest.mark.parametrize(
    ("strict", "asked", "told"),
    [(True, 2_000, 2_000), (True, 2_001, None), (False, 2_001, 2_000), (False, 500, 500)],
)
def test_a_truncation_past_the_audio_is_clamped_or_refused(
    strict: bool, asked: int, told: int | None
) -> None:
    call = live_call(strict=strict)
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    item = begin_message(call)
    finish_reply(call, "It is noon.", 2_000)
    step = call.give(i.TruncateItem(item, 0, asked, CONN, "cmd_1"))
    if told is None:
        problem = Problem(
            "invalid_value", "Audio content of 2000ms is already shorter than 2001ms", param="audio_end_ms"
        )
        assert (step.facts, step.effects) == ((), (e.SendError(CONN, "cmd_1", problem),))
    else:
        assert step.facts[0] == f.ItemTruncated(item, 0, told, CONN, "cmd_1")
        assert names(step) == ["conversation.item.truncated", "item.heard"]


def test_who_truncates_without_a_connection_is_not_held_to_be_strict() -> None:
    call = live_call(strict=True)
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    item = begin_message(call)
    finish_reply(call, audio_ms=2_000)
    assert call.give(i.TruncateItem(item, 0, 2_001)).facts[0] == f.ItemTruncated(
        item, 0, 2_000, ConnectionId(""), ""
    )


@pytest.mark.parametrize("strict", [True, False])
def test_an_item_that_is_being_made_is_truncated_as_asked(strict: bool) -> None:
    """How long it will be is not known; what was heard of it is told when it ends."""
    call = live_call(strict=strict)
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    item = begin_message(call)
    step = call.give(i.TruncateItem(item, 0, 700, CONN, "cmd_1"))
    assert step.facts == (f.ItemTruncated(item, 0, 700, CONN, "cmd_1"),)


# ---------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("strict", "spoken", "voice", "refused"),
    [
        (True, True, "cedar", True),
        (True, False, "cedar", False),
        (True, True, "marin", False),
        (False, True, "cedar", False),
    ],
)
def test_a_voice_stays_once_it_was_heard_where_errors_are_strict(
    strict: bool, spoken: bool, voice: str, refused: bool
) -> None:
    call = live_call(strict=strict)
    if spoken:
        call.give(i.CreateResponse(ResponseRequest(), CONN))
        begin_message(call)
        finish_reply(call)
    step = call.give(i.UpdateConfig(SessionConfig(voice=voice), CONN, "cmd_1"))
    assert step.is_rejected == refused
    if refused:
        message = "Cannot update a conversation's voice if assistant audio is present"
        problem = Problem("cannot_update_voice", message, param="session.audio.output.voice")
        assert step.effects == (e.SendError(CONN, "cmd_1", problem),)


@pytest.mark.parametrize("request_", [ResponseRequest(modality="text"), ResponseRequest()])
def test_text_and_calls_are_no_voice(request_: ResponseRequest) -> None:
    call = live_call(SessionConfig(tools=(ToolSpec("clock"),)), strict=True)
    call.give(i.CreateResponse(request_, CONN))
    if request_.modality == "text":
        begin_message(call)
        finish_reply(call)
    else:
        call_tool(call, "clock")
    assert not call.give(i.UpdateConfig(SessionConfig(voice="cedar"), CONN)).is_rejected


def test_a_link_is_told_of_new_settings_while_it_is_open() -> None:
    call = live_call()
    config = SessionConfig(instructions="Be brief.")
    assert call.give(i.UpdateConfig(config, CONN)).effects == (e.ConfigureLink(config),)
    call.give(i.LinkLost(1, "link_unavailable"))
    assert call.give(i.UpdateConfig(config, CONN)).effects == ()
