"""Stories of who has the floor, told in text files: ``tests/scenarios/floor/*.txt``.

``playing`` and ``silent`` say whether the agent is heard; ``voice ...####...`` is one character for each voice
frame of 32 ms, its chance of speech: ``.`` none, ``1``–``9`` tenths, ``#`` certain; ``starved`` is no audio
at all for a while; ``settings silence=500 threshold=5`` (tenths) comes first, if at all. Output: what the floor
decides, with the time of the decision, and in brackets its own trace. Written anew by ``pytest --rewrite``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core_story import Words, tell
from openline.core.audio import ms_of_samples
from openline.core.floor import Floor, FloorEvent, FloorSettings, Hold, Release, Started, Stopped

STORIES = sorted(Path(__file__).with_name("floor").glob("*.txt"))
FRAME = 768
"""Samples of a voice frame: 32 ms."""
CHANCE = {".": 0.0, "#": 1.0} | {str(tenths): tenths / 10 for tenths in range(1, 10)}


class FloorStory:
    def __init__(self) -> None:
        self.floor = Floor(FloorSettings(), self.trace)
        self.at = 0
        self.told: list[str] = []

    def close(self) -> None:
        pass

    def trace(self, event: str, state: str, position: int) -> None:
        self.told.append(f"       [{event} -> {state} at {ms_of_samples(position)}ms]")

    def play(self, command: str) -> list[str]:
        self.told = []
        words = Words.of(command)
        match words.verb:
            case "settings":
                settings = FloorSettings(words.ms("threshold", 5) / 10, words.ms("silence", 500))
                self.floor = Floor(settings, self.trace)
            case "playing" | "silent":
                self.floor.is_playing = words.verb == "playing"
            case "voice":
                for character in words.plain[0]:
                    start, self.at = self.at, self.at + FRAME
                    self.tell(self.floor.frame(start, self.at, CHANCE[character]))
            case "starved":
                self.tell(self.floor.starved())
            case "reset":
                self.tell(self.floor.reset())
            case "undecided":
                since = self.floor.undecided_from
                self.told.append("no" if since is None else f"since {ms_of_samples(since)}ms")
            case _:
                raise AssertionError(f"a floor story has no '{words.verb}'; see the top of this file")
        return self.told

    def tell(self, events: tuple[FloorEvent, ...]) -> None:
        self.told += [f"{ms_of_samples(self.at):>5}ms {described(event)}" for event in events]


def described(event: FloorEvent) -> str:
    match event:
        case Hold():
            return "hold"
        case Release():
            return "release"
        case Started(start):
            return f"started from={ms_of_samples(start)}ms"
        case Stopped(start, end):
            return f"stopped from={ms_of_samples(start)}ms to={ms_of_samples(end)}ms"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_floor_is_given_as_told(path: Path, rewrite: bool) -> None:
    expected = path.read_text(encoding="utf-8")
    written = tell(expected, FloorStory())
    if rewrite:
        path.write_text(written, encoding="utf-8")
        return
    assert written == expected, f"{path.name} differs; if that is meant: pytest --rewrite tests/scenarios"


def test_every_story_says_what_it_covers() -> None:
    assert len(STORIES) >= 8
    for path in STORIES:
        assert path.read_text(encoding="utf-8").startswith("# covers "), f"{path.name}: '# covers A13' first"
