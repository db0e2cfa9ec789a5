"""What was heard of a reply: who says so, when, and what follows for its text."""

from __future__ import annotations

from typing import Any

import pytest

from core_call import (
    CONN,
    begin_message,
    finished_reply,
    live_call,
    names,
    reply_under_way,
    speak,
)
from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import (
    Cut,
    HeardSource,
    Item,
    Part,
    SessionConfig,
)
from openline.types import ItemId


@pytest.mark.parametrize(
    ("first", "second", "after_ms", "taken"),
    [
        (("paced", 2_000), ("assumed", 3_000), 0, False),
        (("paced", 2_000), ("reported", 1_000), 0, True),
        (("paced", 2_000), ("paced", 2_000), 0, False),
        (("paced", 2_000), ("reported", 2_000), 0, True),
        (("paced", 2_000), ("paced", 1_000), 2_000, True),
        (("paced", 2_000), ("paced", 1_000), 2_001, False),
        (("paced", 2_000), ("reported", 1_000), 2_001, False),
        (("paced", 2_000), ("paced", 2_001), 2_001, True),
        (("paced", 0), ("paced", 1), 2_001, True),
        (("paced", 2_000), ("reported", 2_000), 2_001, False),
    ],
)
def test_which_word_counts_for_what_was_heard(
    first: tuple[HeardSource, int], second: tuple[HeardSource, int], after_ms: int, taken: bool
) -> None:
    call, item = finished_reply()
    call.give(i.Heard(Cut(item, "", 4_000, first[1], first[0])))
    call.ms += after_ms
    step = call.give(i.Heard(Cut(item, "", 4_000, second[1], second[0])))
    assert names(step) == (["item.heard"] if taken else [])


def test_a_client_may_say_late_what_was_heard_and_its_word_stands() -> None:
    call, item = finished_reply()
    call.give(i.Heard(Cut(item, "", 4_000, 2_000, "reported")))
    call.ms += 60_000
    assert names(call.give(i.TruncateItem(item, 0, 1_000, CONN))) == [
        "conversation.item.truncated",
        "item.heard",
    ]
    assert call.give(i.Heard(Cut(item, "", 4_000, 4_000, "reported"))).facts == ()


def test_a_client_that_cuts_after_an_interruption_claims_no_words_that_were_not_spoken() -> None:
    """The text of the second sentence is there, most of its audio is not: in proportion it would be half of all."""
    call, response = reply_under_way()
    (item, *_) = [output.item_id for output in call.session.state.responses[response].outputs.values()]
    text = "One line is open. Every word on it is put in order, and none is lost."
    call.give(i.CancelResponse(None, (Cut(item, text, 2_000, 900, "paced", 8),), conn=CONN))
    step = call.give(i.TruncateItem(item, 0, 900, CONN))
    assert step.facts[-1] == f.ItemHeard(item, 900, 8, "client", True)
    assert step.effects == (e.CutItem(item, 900, "One line"),)
    for asked, end in ((880, 8), (700, 8), (500, 3)):
        (*_, told) = call.give(i.TruncateItem(item, 0, asked, CONN)).facts
        assert told == f.ItemHeard(item, asked, end, "client", True), "a moment less is not a word less"


@pytest.mark.parametrize(("cut", "end"), [((2_000, 2_000, "paced", 8), 8), ((0, 0, "paced"), 0)])
def test_an_answer_that_stops_between_its_sentences_claims_the_next_one_by_no_way(
    cut: tuple[Any, ...], end: int
) -> None:
    """All of its audio was heard, or none had come; the text of what was to be said next is there."""
    call, response = reply_under_way()
    (item, *_) = [output.item_id for output in call.session.state.responses[response].outputs.values()]
    text = "One line is open. Every word on it is put in order, and none is lost."
    step = call.give(i.CancelResponse(None, (Cut(item, text, *cut),), conn=CONN))
    assert step.facts[1] == f.ItemHeard(item, cut[1], end, "paced", False)
    assert e.CutItem(item, cut[1], text[:end]) in step.effects
    (*_, told) = call.give(i.TruncateItem(item, 0, 5_000, CONN)).facts
    assert told == f.ItemHeard(item, cut[1], end, "client", end > 0), "a client knows no better"


def test_more_than_all_of_an_item_is_all_of_it_and_the_model_need_not_be_told() -> None:
    call, item = finished_reply()
    step = call.give(i.Heard(Cut(item, "", 4_000, 4_100, "reported")))
    assert step.facts == (f.ItemHeard(item, 4_000, 36, "reported", False),)
    assert step.effects == ()


def test_how_long_an_item_was_is_taken_from_the_cut_where_nobody_else_knows() -> None:
    call = live_call()
    spoken = Item(
        ItemId("said"), "message", "assistant", "assistant", content=(Part("output_audio", "It is noon."),)
    )
    call.give(i.CreateItem(spoken, None, CONN))
    step = call.give(i.Heard(Cut(ItemId("said"), "", 1_000, 600, "reported")))
    assert step.facts == (f.ItemHeard(ItemId("said"), 600, 5, "reported", True),)
    assert step.effects == (e.CutItem(ItemId("said"), 600, "It is"),)


def test_of_an_unfinished_item_that_a_client_brings_nothing_is_known_yet() -> None:
    call = live_call()
    content = (Part("output_audio", "It is noon."),)
    spoken = Item(ItemId("said"), "message", "assistant", "assistant", "incomplete", content)
    call.give(i.CreateItem(spoken, None, CONN))
    step = call.give(i.Heard(Cut(ItemId("said"), "", 1_000, 600, "reported")))
    assert step.facts == (f.ItemHeard(ItemId("said"), 600, 5, "reported", True),)


def test_nothing_is_heard_of_an_item_that_is_being_made_or_is_not_there() -> None:
    call = live_call()
    speak(call, "tell me a story")
    item = begin_message(call)
    for unknown in (item, ItemId("item_9")):
        assert call.give(i.Heard(Cut(unknown, "Once", 900, 300, "reported"))).facts == ()


def test_a_barge_in_cuts_what_still_plays_and_leaves_what_was_heard_whole() -> None:
    call, item = finished_reply()
    whole = Cut(item, "", 4_000, 4_000, "paced")
    step = call.give(i.SpeechStarted(1, 240_000, (whole, Cut(ItemId("item_9"), "", 900, 1, "paced"))))
    assert names(step) == ["input_audio_buffer.speech_started"]


def test_a_cut_of_an_open_call_and_of_open_text_is_no_matter_of_hearing() -> None:
    call, response = reply_under_way()
    outputs = call.session.state.responses[response].outputs
    cuts = tuple(Cut(output.item_id, "It is noon.", 2_000, 900, "paced", 5) for output in outputs.values())
    step = call.give(i.CancelResponse(None, cuts, conn=CONN))
    assert names(step) == [
        "response.output_item.done", "item.heard", "response.output_item.done", "response.done",
    ]  # fmt: skip
    message, _, cancelled, done = step.facts
    assert isinstance(message, f.OutputItemDone) and isinstance(cancelled, f.OutputItemDone)
    assert (message.shown_end, message.audio_ms, message.item.text) == (5, 2_000, "It is noon.")
    assert (cancelled.shown_end, cancelled.item.arguments, cancelled.item.status) == (0, "", "incomplete")
    assert cancelled.item.error == "cancelled before it was complete"
    written = live_call(SessionConfig(modality="text"))
    speak(written, "what time is it")
    item = begin_message(written)
    step = written.give(i.CancelResponse(None, (Cut(item, "It is", 0, 0, "paced"),), conn=CONN))
    assert names(step) == ["response.output_item.done", "response.done"]
    (shown, *_) = step.facts
    assert isinstance(shown, f.OutputItemDone)
    assert (shown.shown_end, shown.audio_ms, shown.item.content[0].text) == (5, 0, "It is")


def test_a_checkpoint_is_of_one_item() -> None:
    """After a crash nothing else is known of what was being made."""
    call, response = reply_under_way()
    call.give(i.MessageStarted(1, response, 2))
    first, _, third = call.session.state.responses[response].outputs.values()
    call.give(i.MessageProgress(response, 0, Cut(first.item_id, "It is", 900, 900, "paced")))
    step = call.crash()
    ended = {fact.item.id: fact for fact in step.facts if isinstance(fact, f.OutputItemDone)}
    assert (ended[first.item_id].item.text, ended[first.item_id].audio_ms) == ("It is", 900)
    assert (ended[third.item_id].item.text, ended[third.item_id].audio_ms) == ("", 0)


def test_of_what_others_said_nothing_is_heard() -> None:
    call = live_call()
    speak(call, "what time is it")
    (said,) = call.session.state.entries
    assert call.give(i.Heard(Cut(said, "what time is it", 1_000, 300, "reported"))).facts == ()


def test_a_cut_is_noted_for_the_message_that_is_being_made_and_for_nothing_else() -> None:
    call, response = reply_under_way()
    call.give(i.MessageFinished(response, 0, "It is noon.", 900))
    call.give(i.MessageStarted(1, response, 2))
    outputs = call.session.state.responses[response].outputs
    cuts = tuple(Cut(output.item_id, "It is", 900, 900, "paced") for output in outputs.values())
    step = call.give(i.Detach(CONN, 1006, cuts=cuts))
    assert step.facts[1:] == (f.OutputItemProgressed(outputs[2].item_id, "It is", 900, 900),)


def test_how_long_an_item_was_is_what_was_said_when_it_ended() -> None:
    call, item = finished_reply()
    (fact,) = call.give(i.Heard(Cut(item, "", 9_000, 2_000, "reported"))).facts
    assert fact == f.ItemHeard(item, 2_000, 16, "reported", True)
