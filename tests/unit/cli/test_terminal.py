"""What a person sees: nothing wider than the window, no escape where nobody looks, one line that grows."""

from __future__ import annotations

import io

import pytest

from openline.cli.terminal import Terminal, clean, columns_of, head_of, tail_of


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def tty(width: int = 80) -> tuple[Terminal, Tty]:
    out = Tty()
    return Terminal(out, is_tty=True, colour=True, width=width), out


def test_piped_output_has_neither_escapes_nor_the_growing_line() -> None:
    out = io.StringIO()
    term = Terminal.of(out, {})
    term.live("half a w")
    term.line(term.paint("done", "green", "bold"))
    assert out.getvalue() == "done\n"


@pytest.mark.parametrize(
    ("environment", "colour"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_is_for_terminals_that_want_it(environment: dict[str, str], colour: bool) -> None:
    term = Terminal.of(Tty(), environment)
    assert ("\x1b" in term.paint("x", "red")) is colour


def test_a_live_line_is_replaced_in_one_write_and_never_wraps() -> None:
    term, out = tty(40)
    term.live("a" * 100)
    term.live("b")
    term.line("for good")
    writes = out.getvalue().split("\r")
    assert writes[1] == "…" + "a" * 38 + "\x1b[K"
    assert writes[2] == "b\x1b[K"
    assert out.getvalue().endswith("\r\x1b[Kfor good\n")


def test_the_same_live_line_is_not_written_twice() -> None:
    term, out = tty()
    term.live("same")
    before = out.getvalue()
    term.live("same")
    assert out.getvalue() == before


def test_columns_count_what_is_seen() -> None:
    assert columns_of("\x1b[1mab\x1b[0m") == 2
    assert columns_of("日本") == 4
    assert columns_of(tail_of("日本日本日本", 5)) <= 5
    assert head_of("abcdef", 4) == "abc…"
    assert tail_of("abcdef", 4) == "…def"
    assert head_of("abcd", 4) == tail_of("abcd", 4) == "abcd"


def test_wrapped_text_keeps_its_column() -> None:
    term, _ = tty(40)
    lines = term.wrapped("word " * 20, indent=10, first="who")
    assert lines[0].startswith("who       word") and all(line.startswith(" " * 10) for line in lines[1:])
    assert max(columns_of(line) for line in lines) <= 40


def test_what_others_say_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[2Jb\nc\u202ed") == "a [2Jb c d"
