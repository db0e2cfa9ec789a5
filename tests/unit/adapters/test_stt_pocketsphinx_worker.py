"""The recognizer worker's own logic on a decoder that only takes notes: grammars, spelling, a fresh start each."""

from __future__ import annotations

import pytest

from openline.adapters.stt_pocketsphinx_worker import (
    MAX_GRAMMARS,
    Engine,
    jsgf,
    pack_result,
    unpack_result,
    words_of,
)


class Heard:
    def __init__(self, hypstr: str, score: float) -> None:
        self.hypstr = hypstr
        self.score = score
        self.prob = 0.01


class NotingDecoder:
    """Knows every word without an x and always hears ``says``."""

    def __init__(self, says: str = "what time is it", score: float = 0.8) -> None:
        self.says = says
        self.score = score
        self.notes: list[str] = []
        self.searches: set[str] = set()

    def start_utt(self) -> None:
        self.notes.append("start")

    def process_raw(self, data: bytes) -> None:
        self.notes.append("hear")

    def end_utt(self) -> None:
        self.notes.append("end")

    def hyp(self) -> Heard | None:
        return Heard(self.says, self.score) if self.says else None

    def n_frames(self) -> int:
        return 1

    def get_cmn(self, update: bool = False) -> str:
        return "40,3,-1"

    def set_cmn(self, cmn: str) -> None:
        self.notes.append(f"cmn {cmn}")

    def lookup_word(self, word: str) -> str | None:
        return None if "x" in word else "W"

    def add_jsgf_string(self, name: str, jsgf: str) -> None:
        self.searches.add(name)

    def activate_search(self, name: str | None = None) -> None:
        assert name is None or name in self.searches
        self.notes.append(f"search {name}")

    def remove_search(self, name: str) -> None:
        self.searches.remove(name)


def test_words_are_spelled_as_in_the_dictionary() -> None:
    assert words_of("  What's the TIME, Mr. Smith? It\u2019s twenty-one. ") == (
        "what's", "the", "time", "mr", "smith", "it's", "twenty", "one",
    )  # fmt: skip
    assert words_of("5 \u2026 ?") == ()


def test_a_grammar_lists_each_sentence_once_and_nothing_of_its_own_syntax() -> None:
    text = jsgf(["Go on.", "go on", "Stop | <evil>;", "!?"])
    assert text == "#JSGF V1.0; grammar g; public <g> = go on | stop evil;"


def test_with_a_grammar_the_phrase_comes_out_as_it_was_written() -> None:
    engine = Engine(NotingDecoder())
    engine.start("What time is it?\nGoodbye.")
    assert engine.text() == "What time is it?"
    assert engine.finish() == ("What time is it?", 0.8)


def test_the_beginning_of_a_phrase_is_a_partial_and_no_result() -> None:
    engine = Engine(NotingDecoder(says="what time"))
    engine.start("What time is it?")
    assert engine.text() == "what time"
    assert engine.finish() == ("", 0.0)


def test_free_speech_has_no_confidence_and_a_search_of_its_own() -> None:
    decoder = NotingDecoder()
    engine = Engine(decoder)
    engine.start("What time is it?")
    engine.finish()
    engine.start("")
    assert engine.finish() == ("what time is it", None)
    assert [note for note in decoder.notes if note.startswith("search")] == ["search grammar1", "search None"]


def test_every_utterance_starts_from_the_same_cepstral_mean() -> None:
    decoder = NotingDecoder()
    engine = Engine(decoder)
    for _ in range(2):
        engine.start("")
        engine.hear(b"..")
        engine.finish()
    assert decoder.notes == ["cmn 40,3,-1", "start", "hear", "end"] * 2


def test_an_utterance_that_was_left_open_is_ended_before_the_next() -> None:
    decoder = NotingDecoder()
    engine = Engine(decoder)
    engine.start("")
    engine.start("")
    assert decoder.notes == ["cmn 40,3,-1", "start", "end", "cmn 40,3,-1", "start"]


def test_unknown_words_are_named_and_the_decoder_stays_usable() -> None:
    engine = Engine(NotingDecoder())
    with pytest.raises(ValueError, match="not in the en-us dictionary: xylo"):
        engine.start("play the xylo")
    with pytest.raises(ValueError, match="no phrase with words"):
        engine.start("?\n!")
    engine.start("what time is it")
    assert engine.finish()[0] == "what time is it"


def test_grammars_are_kept_up_to_a_limit_the_oldest_goes_first() -> None:
    decoder = NotingDecoder()
    engine = Engine(decoder)
    for number in range(MAX_GRAMMARS + 3):
        engine.start(f"phrase {'a' * (number + 1)}")
        engine.start("kept in use")
    assert len(decoder.searches) == MAX_GRAMMARS
    assert "grammar2" in decoder.searches, "what is used again stays"
    assert "grammar1" not in decoder.searches


def test_nothing_heard_is_empty_text() -> None:
    engine = Engine(NotingDecoder(says=""))
    engine.start("")
    assert engine.text() == ""
    assert engine.finish() == ("", None)
    engine.start("go on")
    assert engine.finish() == ("", 0.0)


@pytest.mark.parametrize("score", [-0.1, 1.4, float("nan")])
def test_a_score_outside_of_0_to_1_is_held_to_it(score: float) -> None:
    engine = Engine(NotingDecoder(score=score))
    engine.start("what time is it")
    confidence = engine.finish()[1]
    assert confidence is not None
    assert 0.0 <= confidence <= 1.0


@pytest.mark.parametrize("result", [("", None), ("two words", 0.5), ("", 0.0), ("one", None)])
def test_results_cross_the_pipe_whole(result: tuple[str, float | None]) -> None:
    assert unpack_result(pack_result(*result)) == result
