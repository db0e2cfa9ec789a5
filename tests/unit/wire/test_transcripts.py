"""A streamed transcript: the same words however the line cuts it, and nothing that raises."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.wire.transcripts import TranscriptStream, whole_text


def event(**values: object) -> bytes:
    return b"data: " + json.dumps(values).encode() + b"\n\n"


def delta(text: str | None) -> bytes:
    return event(type="transcript.text.delta", delta=text)


DONE = event(type="transcript.text.done", text="two bolts, please", usage={"type": "tokens"})


def read(*chunks: bytes) -> TranscriptStream:
    stream = TranscriptStream()
    for chunk in chunks:
        stream.feed(chunk)
    stream.end()
    return stream


def test_words_are_added_up_and_the_last_event_has_the_final_text() -> None:
    stream = TranscriptStream()
    assert stream.feed(delta("two")) and stream.text == "two" and stream.final is None
    assert stream.feed(delta(" bolts")) and stream.text == "two bolts"
    assert not stream.feed(DONE)
    assert (stream.final, stream.is_foreign, stream.has_failed) == ("two bolts, please", False, False)


@given(st.lists(st.integers(0, 400), max_size=8), st.sampled_from([b"\n", b"\r\n"]))
def test_how_the_line_cuts_it_makes_no_difference(cuts: list[int], newline: bytes) -> None:
    body = (b": a comment\n\nevent: x\n" + delta("two ") + delta("b\u00f6lts") + DONE).replace(b"\n", newline)
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    stream = read(*(body[low:high] for low, high in zip(places, places[1:], strict=False)))
    assert (stream.text, stream.final) == ("two b\u00f6lts", "two bolts, please")


@pytest.mark.parametrize(
    ("body", "text", "final", "is_foreign"),
    [
        (delta("a") + delta(" b"), "a b", None, False),
        (delta("a") + b"data: [DONE]\n\n", "a", "a", False),
        (b"data: [DONE]\n\n", "", None, True),
        (DONE + b"data: [DONE]\n\n", "", "two bolts, please", False),
        (delta(" a ") + event(type="transcript.text.done"), " a ", "a", False),
        (delta(None) + event(type="transcript.text.segment", text="a"), "", None, False),
        (event(object="transcription.chunk", choices=[]) + b"data: [DONE]\n\n", "", None, True),
        (event(text="a part of it"), "", None, True),
        (b"data: {not json\n\ndata: [1]\n\ndata: \xff\n\n\n", "", None, True),
        (b'data: {"type":\ndata:"transcript.text.delta","delta":"a"}', "a", None, False),
        (b"data: " + b"[" * 100_000 + b"\n\n", "", None, True),
        (b"", "", None, True),
    ],
)
def test_what_a_server_may_send_is_read_as_far_as_it_can_be(
    body: bytes, text: str, final: str | None, is_foreign: bool
) -> None:
    stream = read(body)
    assert (stream.text, stream.final, stream.is_foreign) == (text, final, is_foreign)


@pytest.mark.parametrize("failed", [event(type="error", message="x"), event(error={"code": "server_error"})])
def test_a_server_that_says_that_it_failed_has_failed(failed: bytes) -> None:
    stream = read(delta("a"), failed)
    assert stream.has_failed and stream.final is None and not stream.is_foreign


@pytest.mark.parametrize(
    ("answer", "text"),
    [(b'{"text":" two bolts ","usage":{}}', "two bolts"), (b'{"text":null}', None), (b"[]", None), (b"\xff", None)],
)  # fmt: skip
def test_a_whole_answer_has_its_text_or_none(answer: bytes, text: str | None) -> None:
    assert whole_text(answer) == text


@given(st.binary(max_size=300))
def test_noise_is_no_transcript(noise: bytes) -> None:
    stream = read(noise)
    assert stream.final is None
    assert whole_text(noise) is None
