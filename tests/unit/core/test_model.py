"""The nouns: what they compute, and the defaults that people meet."""

from __future__ import annotations

from typing import Literal

from openline.core import model as m
from openline.types import ItemId


def test_a_range_of_audio_knows_its_times() -> None:
    audio = m.AudioRange(24_000, 60_023)
    assert (audio.start_ms, audio.end_ms, audio.duration_ms) == (1_000, 2_500, 1_500)
    assert m.AudioRange(160, 480, 16_000).duration_ms == 20
    assert m.AudioRange(160, 480, 16_000).start_ms == 10
    assert m.AudioRange(160, 480, 16_000).end_ms == 30


def test_the_text_of_an_item_is_that_of_its_parts() -> None:
    parts = (
        m.Part("input_text", "two"),
        m.Part("input_audio"),
        m.Part("input_image"),
        m.Part("input_text", "bolts"),
    )
    assert m.Item(ItemId("item_1"), "message", "user", "user", content=parts).text == "two bolts"


def test_what_was_thought_is_no_text_and_what_is_empty_is_no_refusal() -> None:
    parts = (m.Part("reasoning", '{"id":"rs_1"}'), m.Part("reasoning"), m.Part("output_text", "bolts"))
    item = m.Item(ItemId("item_1"), "message", "assistant", "assistant", content=parts)
    assert (item.text, item.reasoning, item.is_refusal) == ("bolts", ('{"id":"rs_1"}',), False)
    assert not m.Item(ItemId("item_2"), "function_call", "assistant").is_refusal


def test_a_better_source_of_what_was_heard_ranks_higher() -> None:
    assert sorted(m.HEARD_RANK, key=lambda source: m.HEARD_RANK[source]) == [
        "assumed", "paced", "reported", "client",
    ]  # fmt: skip
    assert m.HEARD_RANK["assumed"] == 0, "nothing ranks below not being known"


def test_a_turn_ends_after_the_silence_of_its_detector() -> None:
    assert m.TurnDetection(silence_duration_ms=700, eagerness="low").wait_ms == 700
    waits = {e: m.TurnDetection("semantic_vad", silence_duration_ms=9, eagerness=e).wait_ms for e in EAGER}
    assert waits == {"low": 1_200, "medium": 500, "auto": 500, "high": 300}


EAGER: tuple[Literal["low", "medium", "high", "auto"], ...] = ("low", "medium", "high", "auto")


def test_defaults() -> None:
    """The protocol's own where it has one (openai-protocols.md B.3), DESIGN's for the times."""
    assert m.Limits() == m.Limits(30_000, 15_000, 604_800_000, 8_000, 10_000, 300, 8_000)
    assert m.TurnDetection() == m.TurnDetection("server_vad", 0.5, 300, 500, True, True, None, "auto")
    assert m.SessionConfig() == m.SessionConfig(
        "embedded", "audio", "", (), '"auto"', True, None, "marin", 1.0, m.TurnDetection(), "", "{}",
        "realtime", "pcm", "pcm", None, 1.0,
    )  # fmt: skip
    assert m.ToolSpec("clock") == m.ToolSpec(
        "clock", "", '{"type":"object","properties":{}}', "client", "ask", 30_000
    )
    assert m.ResponseRequest() == m.ResponseRequest(
        "auto", None, None, None, None, None, None, (), False, (), None, (), "client", None, "", "", None
    )
    assert m.Usage() == m.Usage(0, 0, 0, 0, 0, 0)
    assert m.Part("input_image") == m.Part("input_image", None, None, "", "")
    assert m.Item(ItemId("i"), "message", "user") == m.Item(
        ItemId("i"), "message", "user", "", "completed", (), "", "", "", "", "", "", None, None
    )
    assert m.Problem("code", "Message.") == m.Problem("code", "Message.", "invalid_request_error", None)
    assert m.AudioRange(0, 1).rate == 24_000


def test_a_written_reply_has_a_silence_of_its_own() -> None:
    limits = m.Limits(silence_budget_ms=1, text_silence_ms=2)
    assert (limits.silence_ms("audio"), limits.silence_ms("text")) == (1, 2)
