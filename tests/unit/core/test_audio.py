"""Arithmetic of media time, and the text that goes with heard audio."""

from __future__ import annotations

import pytest

from openline.core.audio import (
    BYTES_PER_MS,
    RATE,
    SAMPLES_PER_MS,
    cut_text,
    ms_of_bytes,
    ms_of_samples,
    samples_of,
    samples_of_ms,
)
from openline.core.model import AudioFormat


@pytest.mark.parametrize("name", ["pcm", "pcmu", "pcma"])
def test_a_millisecond_of_every_format_moves_a_track_by_as_many_samples(name: AudioFormat) -> None:
    assert samples_of(name, bytes(BYTES_PER_MS[name] * 20)) == samples_of_ms(20)


def test_a_track_has_the_rate_of_the_protocol() -> None:
    assert (RATE, SAMPLES_PER_MS) == (24_000, 24)


def test_times_are_whole_milliseconds_rounded_down() -> None:
    assert RATE == 24_000
    assert [ms_of_samples(samples) for samples in (0, 23, 24, 47, 24_000)] == [0, 0, 1, 1, 1_000]
    assert ms_of_samples(160, 16_000) == 10
    assert [samples_of_ms(ms) for ms in (0, 1, 1_500)] == [0, 24, 36_000]
    assert samples_of_ms(10, 16_000) == 160
    assert [ms_of_bytes(count) for count in (0, 1, 48, 95, 96)] == [0, 0, 1, 1, 2]
    assert ms_of_bytes(320, 16_000) == 10


STORY = "Once upon a time there was a sailor."


@pytest.mark.parametrize(
    ("heard_ms", "text_end", "expected"),
    [
        (4_000, None, (36, False)),
        (4_001, 3, (36, False)),
        (3_999, None, (28, True)),
        (2_000, None, (16, True)),
        (1_900, None, (16, True)),
        (1_889, None, (16, True)),
        (1_777, None, (11, True)),
        (1_000, None, (9, True)),
        (445, None, (4, True)),
        (444, None, (0, True)),
        (1, None, (0, True)),
        (0, None, (0, False)),
        (-5, 7, (0, False)),
        (2_000, 11, (11, False)),
        (2_000, 99, (36, False)),
    ],
)
def test_what_was_heard_is_cut_to_whole_words(
    heard_ms: int, text_end: int | None, expected: tuple[int, bool]
) -> None:
    assert cut_text(STORY, 4_000, heard_ms, text_end) == expected


@pytest.mark.parametrize(
    ("heard_ms", "expected"),
    [
        (2_000, (9, True)),
        (1_999, (9, True)),  # a moment less is not a word less
        (1_556, (9, True)),  # seven characters: two from the end of the word, three from the one before
        (1_555, (4, True)),
        (1_000, (4, True)),
        (667, (4, True)),
        (445, (4, True)),  # as far from its end as from its begin
        (444, (0, True)),
        (2_001, (9, True)),
        (3_000, (22, True)),  # half of what was left
        (3_999, (28, True)),
        (4_000, (36, False)),
        (0, (0, False)),
    ],
)
def test_what_was_known_to_be_heard_is_never_more_for_less_time(
    heard_ms: int, expected: tuple[int, bool]
) -> None:
    assert cut_text(STORY, 4_000, heard_ms, None, (2_000, 9)) == expected
    assert cut_text(STORY, 4_000, 2_000, None, (2_000, 36)) == (36, True)
    assert cut_text(STORY, 4_000, 2_000, None, (2_000, 6)) == (6, True), "also within a word"
    assert cut_text(STORY, 4_000, 2_000, None, (0, 0)) == cut_text(STORY, 4_000, 2_000, None)
    assert cut_text(STORY, 4_000, 2_000, 11, (2_000, 9)) == (11, False), "a mark is a mark"


def test_all_of_the_audio_so_far_is_not_all_of_the_text_where_a_mark_says_less() -> None:
    assert cut_text(STORY, 4_000, 4_000, 9, is_open=True) == (9, False)
    assert cut_text(STORY, 4_000, 4_100, 40, is_open=True) == (36, False)
    assert cut_text(STORY, 4_000, 4_000, None, is_open=True) == (36, False), "nothing better is known"
    assert cut_text(STORY, 0, 0, None, is_open=True) == (0, False), "its audio had not begun"
    assert cut_text(STORY, 4_000, 2_000, 9, is_open=True) == (9, False)
    assert cut_text(STORY, 4_000, 4_000, 35) == (36, False), "what is complete was heard whole"


def test_what_was_known_of_all_the_audio_stays_so_for_any_time_after_it() -> None:
    assert cut_text(STORY, 2_000, 2_000, None, (2_000, 9)) == (9, True)
    assert cut_text(STORY, 2_000, 9_000, None, (2_000, 9)) == (9, True)
    assert cut_text(STORY, 2_000, 9_000, None, (1_999, 9)) == (36, False)
    assert cut_text(STORY, 0, 0, None, (0, 0)) == (0, False)


def test_text_without_audio_counts_as_heard_and_one_word_is_heard_whole_or_not_at_all() -> None:
    assert cut_text("hello", 0, 0, None) == (5, False)
    assert cut_text("hello", 1_000, 999, None) == (0, True)
    assert cut_text("", 1_000, 500, None) == (0, True)
    assert cut_text("a  b", 1_000, 500, None) == (1, True)
    assert cut_text("one\ntwo", 1_000, 800, None) == (3, True)
    assert cut_text("one\ntwo", 1_000, 429, None) == (3, True)
