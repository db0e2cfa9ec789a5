"""Marks, pieces and requests of the eSpeak adapter, without the engine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openline.adapters.tts_espeak import PIECE_CHARACTERS, VOICES, _request, pieces
from openline.adapters.tts_espeak_worker import EVENT_END, EVENT_WORD, Marks, Request

TEXT = "Tiger 27. It's ten, isn't it?"
# What eSpeak NG 1.52 reports for such a sentence: parts of "27" and "isn't" have marks of their own.
EVENTS = [
    (EVENT_WORD, 1, 0), (EVENT_WORD, 7, 100), (EVENT_WORD, 8, 150), (EVENT_END, 10, 200),
    (EVENT_WORD, 11, 200), (EVENT_WORD, 16, 300), (EVENT_END, 19, 400), (EVENT_WORD, 21, 400),
    (EVENT_WORD, 24, 450), (EVENT_WORD, 27, 500), (EVENT_END, 30, 600),
]  # fmt: skip


def test_a_mark_is_the_end_of_the_last_whole_word_heard() -> None:
    marks = Marks(TEXT)
    for event in EVENTS:
        marks.add(*event)
    heard = {at: TEXT[: marks.spoken_at(at)] for at in (0, 99, 100, 199, 200, 299, 300, 400, 499, 500, 600)}
    assert heard == {
        0: "", 99: "", 100: "Tiger", 199: "Tiger", 200: "Tiger 27.", 299: "Tiger 27.", 300: "Tiger 27. It's",
        400: "Tiger 27. It's ten,", 499: "Tiger 27. It's ten,", 500: "Tiger 27. It's ten, isn't", 600: TEXT,
    }  # fmt: skip


@given(
    text=st.text(max_size=40),
    events=st.lists(
        st.tuples(st.sampled_from([1, 2, 5]), st.integers(-5, 60), st.integers(0, 900)), max_size=20
    ),
)
def test_whatever_the_engine_reports_marks_stay_inside_the_text_and_never_fall(
    text: str, events: list[tuple[int, int, int]]
) -> None:
    marks = Marks(text)
    for event in events:
        marks.add(*event)
    spoken = [marks.spoken_at(sample) for sample in range(0, 1_000, 50)]
    assert spoken == sorted(spoken)
    assert all(0 <= end <= len(text) for end in spoken)
    assert all(end == len(text) or end == 0 or text[end].isspace() for end in spoken)


@given(st.text(alphabet="ab .,\n\u00e9", max_size=2_000))
def test_pieces_join_to_the_text_and_keep_the_limit(text: str) -> None:
    parts = pieces(text)
    assert "".join(parts) == text
    assert all(len(part) <= PIECE_CHARACTERS for part in parts)


def test_pieces_end_at_clauses_before_spaces_and_words_are_cut_only_when_there_are_none() -> None:
    clauses = pieces("One clause, " * 30)
    assert all(part.endswith(", ") for part in clauses)
    assert all(part.endswith(" ") for part in pieces("word " * 100)[:-1])
    assert [len(part) for part in pieces("x" * 700)] == [300, 300, 100]


def test_speed_is_held_to_what_the_engine_takes_and_unknown_voices_get_the_default() -> None:
    assert _request("hi", "marin", 0.01).rate == 80
    assert _request("hi", "marin", 99).rate == 450
    assert _request("hi", "MARIN", 1.0) == _request("hi", "someone", 1.0) == _request("hi", "", 1.0)
    assert len({(voice.engine_name, voice.pitch) for voice in VOICES.values()}) == len(VOICES)


def test_text_that_has_no_encoding_keeps_its_positions() -> None:
    request = _request("a\ud800b\0c", "", 1.0)
    assert request.text == "a?b c"
    assert Request.unpack(request.pack()) == request
