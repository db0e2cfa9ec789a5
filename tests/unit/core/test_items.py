"""Commands that edit the conversation."""

from __future__ import annotations

from core_call import CONN, live_call, names
from openline.core import effects as e
from openline.core import inputs as i
from openline.core.model import AudioRange, Item, Part, SessionConfig
from openline.types import ItemId

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
    first, second = call.session.state.order
    assert first == guessed.id and second == f"item_esstest{seq + 2:06d}02"
