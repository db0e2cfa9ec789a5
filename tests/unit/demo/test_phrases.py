"""The demo's phrases: every recording is there, small, and sounds from the first moment to the last."""

from __future__ import annotations

from importlib.resources import files

import pytest

from openline.demo.phrases import Phrase, audio, load
from openline.errors import ConfigError
from openline.testing.speech import samples_of

BOOK = load()
ALL = [*BOOK.phrases, *(fact.statement for fact in BOOK.facts)]


@pytest.mark.parametrize("phrase", ALL, ids=lambda phrase: phrase.name)
def test_each_phrase_has_its_recording_with_no_silence_around(phrase: Phrase) -> None:
    samples = samples_of(audio(phrase))
    assert 0.4 < len(samples) / 16_000 < 4
    assert max(abs(sample) for sample in samples) == pytest.approx(16_384, abs=1)
    assert max(abs(sample) for sample in samples[:1_600]) > 200
    assert max(abs(sample) for sample in samples[-1_600:]) > 200


def test_the_package_holds_these_recordings_and_no_others_within_its_limit() -> None:
    stored = {entry.name: entry for entry in files("openline.demo").joinpath("audio").iterdir()}
    assert set(stored) == {phrase.file for phrase in ALL}
    assert sum(len(entry.read_bytes()) for entry in stored.values()) < 3_000_000


def test_there_are_enough_facts_and_no_two_share_a_word() -> None:
    words = [fact.value.split()[0] for fact in BOOK.facts]
    assert len(words) >= 24
    assert len(set(words)) == len(words)
    assert {fact.value.split()[1] for fact in BOOK.facts} >= {"two", "three", "five", "six", "seven"}


def test_an_answer_names_its_fact_and_only_it() -> None:
    for fact in BOOK.facts:
        assert BOOK.fact_of_answer(fact.answer) == fact
    assert BOOK.fact_of_answer("Your code word is nothing.") is None
    assert len(set(BOOK.caller_grammar)) == len(ALL)
    assert len(set(BOOK.answer_grammar)) == len(BOOK.facts)


def test_unknown_names_and_missing_files_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="expected the name of a demo phrase"):
        BOOK.by_name("nothing")
    with pytest.raises(ConfigError, match="cannot be read"):
        audio(Phrase("gone", "Gone.", "gone.wav"))
