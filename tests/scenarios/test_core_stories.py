"""Stories of a session, told in text files: ``tests/scenarios/core/*.txt``.

A block is one or more command lines, ``----``, and what the session made of them: facts (what is stored),
effects (what the runtime is to do), ``woken`` and ``wake at`` (its alarm clock, in ms since the story began).
A block without ``----`` only sets the scene.
``context`` tells what the model would be given now. The first lines name the ids of the failures that a
story covers. Expected output is written anew by ``pytest --rewrite``; read the diff.

Commands: see ``Story``. Times are milliseconds of the session's input track or of the clock; ``link=1``
makes an input come from that link; ``by=caller`` says who sent a command; ids are short names in order of
appearance (``item_1``, ``resp_1``). Every story also has the invariants checked after each step, and ends
with a replay of its whole log.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core_story import Story, Teller, tell

STORIES = sorted(Path(__file__).with_name("core").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_session_does_as_told(path: Path, rewrite: bool) -> None:
    check(path, rewrite, Story)


def check(path: Path, rewrite: bool, teller: Callable[[], Teller]) -> None:
    expected = path.read_text(encoding="utf-8")
    written = tell(expected, teller())
    if rewrite:
        path.write_text(written, encoding="utf-8")
        return
    assert written == expected, f"{path.name} differs; if that is meant: pytest --rewrite tests/scenarios"


def test_every_story_says_what_it_covers() -> None:
    assert len(STORIES) >= 25
    for path in STORIES:
        assert path.read_text(encoding="utf-8").startswith("# covers "), (
            f"{path.name}: '# covers A5, D1' first"
        )
