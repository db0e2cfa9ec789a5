"""What the runner looks up itself after a client has passed: the model's journal, and the logs of the gateways."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clients import talker
from integration.gateway import Story, read_story
from openline import bootstrap
from openline.core import facts as f

PATIENCE_S = 5.0
"""From an interruption to its trace, on a machine as busy as a shared CI runner. A story that nobody stops takes
12 s."""
HEARD_MS = 300
"""Between what a client takes for played and what the log says was heard: it counts from the moment when its program
saw the first sound, and its own loudspeaker from when the sound came."""
CHARACTERS_A_SECOND = 20
"""More than the gateways' voice says; it says some 15."""


def why_not_stopped(journal: Path | None, story: str, heard: int) -> str:
    """Why the model did not stop this story when its client had ``heard`` so many words; "" if it did.

    Waits for its end, at most ``PATIENCE_S``.
    """
    assert journal is not None, "there is a model with a journal behind every gateway for Responses clients"
    told: list[talker.Told] = []
    for _ in _patiently():
        told = [one for one in talker.read_journal(journal) if one.story == story]
        if any(one.ended for one in told):
            break
    if len(told) != 2 or not told[-1].ended:
        return f"the model went on with the story, or was asked for it again: {told}"
    if told[-1].ended != "stopped" or not heard <= told[-1].words <= heard + talker.WORDS_UNHEARD:
        return f"the client had {heard} words of the story when it interrupted, the model said {told[-1]}"
    return ""


@dataclass(frozen=True, slots=True)
class Cut:
    """A spoken answer that was cancelled. ``heard_ms`` of ``audio_ms`` that were made, ``text_end`` of ``characters``."""

    heard_ms: int
    audio_ms: int
    text_end: int
    characters: int

    def fits(self, played_ms: int, *, is_exact: bool) -> bool:
        """``is_exact``: the gateway spoke itself, and knows which words its voice had said by then."""
        is_near = abs(self.heard_ms - played_ms) <= HEARD_MS and 0 < self.text_end < self.characters
        return is_near and (not is_exact or self.text_end * 1000 <= self.heard_ms * CHARACTERS_A_SECOND)


def why_not_cut(data: Path, since_ms: int, played_ms: int, *, is_exact: bool) -> str:
    """Why no session that began at ``since_ms`` (wall clock) or later has an answer that was cancelled while it was
    spoken, with what was heard of it cut at what its client played (``Cut.fits``); "" if one has.

    Waits for it, at most ``PATIENCE_S``.
    """
    cuts: list[Cut] = []
    for _ in _patiently():
        cuts = [cut for story in _stories_since(data, since_ms) for cut in cuts_of(story)]
        if any(cut.fits(played_ms, is_exact=is_exact) for cut in cuts):
            return ""
    return f"the client played {played_ms} ms of the answer, {data.name} says that was heard: {cuts}"


def cuts_of(story: Story) -> list[Cut]:
    """In the order of the log."""
    made = {fact.item.id: fact for _, _, fact in story.facts if isinstance(fact, f.OutputItemDone)}
    heard = {fact.item_id: fact for _, _, fact in story.facts if isinstance(fact, f.ItemHeard)}
    return [
        Cut(
            heard[item.id].audio_end_ms,
            made[item.id].audio_ms,
            heard[item.id].text_end,
            len(made[item.id].item.text),
        )
        for _, _, done in story.facts
        if isinstance(done, f.ResponseDone) and done.status == "cancelled"
        for item in done.output
        if item.id in heard and item.id in made
    ]


def _stories_since(data: Path, since_ms: int) -> list[Story]:
    reader = bootstrap.read_data(data)
    try:
        rows = [row for row in reader.sessions(limit=100_000) if row.created_ms >= since_ms]
        return [read_story(reader, row.session) for row in rows]
    finally:
        reader.close()


def _patiently() -> Iterator[None]:
    deadline = time.monotonic() + PATIENCE_S
    yield
    while time.monotonic() < deadline:
        time.sleep(0.05)
        yield
