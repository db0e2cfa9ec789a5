"""Text cut for the voice: nothing lost, nothing added, and pieces that can be spoken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.runtime.sentences import CLAUSE_MIN_CHARS, FIRST_MIN_CHARS, PIECE_MAX_CHARS, Sentences

TEXT = st.text(alphabet=st.sampled_from("ab cdé .,;:!?…\n\"')–—0"), max_size=700)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    """``text`` in the pieces that a model streams, and what comes out."""
    cutter, out, at = Sentences(), list[str](), 0
    for cut in [*sorted(cuts), len(text)]:
        out += cutter.push(text[at:cut])
        at = max(at, cut)
    return out + cutter.flush()


@given(TEXT, st.lists(st.integers(0, 700), max_size=40))
def test_the_pieces_joined_are_the_text_however_it_was_streamed(text: str, cuts: list[int]) -> None:
    cuts = [min(cut, len(text)) for cut in cuts]
    pieces = pieces_of(text, cuts)
    assert "".join(pieces) == text
    assert all(pieces)


@given(TEXT)
def test_no_piece_is_longer_than_a_listener_would_wait_for(text: str) -> None:
    longest_word = max((len(word) for word in text.split(" ")), default=0)
    for piece in pieces_of(text, list(range(0, len(text), 7))):
        assert len(piece) <= PIECE_MAX_CHARS + longest_word + 7


@given(st.integers(PIECE_MAX_CHARS + 1, 4_000))
def test_a_text_without_a_blank_is_cut_too(length: int) -> None:
    pieces = pieces_of("x" * length, [])
    assert "".join(pieces) == "x" * length
    assert max(len(piece) for piece in pieces) <= PIECE_MAX_CHARS
    assert len(pieces) == -(-length // PIECE_MAX_CHARS)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Good morning. How are you? ", ["Good morning.", " How are you?", " "]),
        ("Hm. That is a good question.", ["Hm. That is a good question."]),
        ("It costs 3.50 at most.", ["It costs 3.50 at most."]),
        ('He said "stop." Then he left.', ['He said "stop."', " Then he left."]),
        ("First line\nsecond line", ["First line\nsecond line"]),
        ("The first line\nsecond line", ["The first line\n", "second line"]),
        ("Wait… what was that?", ["Wait… what was that?"]),
        ("", []),
    ],
)
def test_examples(text: str, pieces: list[str]) -> None:
    assert pieces_of(text, []) == pieces


def test_a_long_sentence_is_begun_at_a_clause() -> None:
    text = (
        "when you come out of the lift turn left and go on to the end of the corridor, then knock at the door"
    )
    first, rest = pieces_of(text, [])
    assert first.endswith("corridor,")
    assert len(first) > CLAUSE_MIN_CHARS // 2
    assert rest.startswith(" then")


def test_the_first_piece_comes_as_soon_as_a_sentence_is_over() -> None:
    cutter = Sentences()
    assert cutter.push("Good morn") == []
    assert cutter.push("ing.") == []
    assert cutter.push(" W") == ["Good morning."]
    assert len("Good morning.") >= FIRST_MIN_CHARS
