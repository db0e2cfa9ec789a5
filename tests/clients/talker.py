"""The model of the gateways that Responses clients are pointed at: the rules, and three things that rules cannot do.

It tells a story slowly enough to be interrupted, it refuses, and it thinks before it calls and before it answers.
What it is asked about these it reads out of the conversation that it was given, and nowhere else: how many words of
its story were heard, how often it refused, how many of its thoughts came back unchanged.

Each story leaves two lines in the file that ``TALKER_JOURNAL`` names: that it began, and how it ended. They say
what the model really did, whatever the gateways in front of it tell their clients.

    openline serve clients.talker:agent        # in the folder tests/
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from openline.adapters.llm_rules import RulesModel
from openline.agent.agent import Agent
from openline.core.model import Item, Usage
from openline.core.value import replace
from openline.ports import (
    LanguageModel,
    ModelDone,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    ReasoningDone,
    RefusalDelta,
    TextDelta,
)

JOURNAL = "TALKER_JOURNAL"
STORY_WORDS = 400
WORD_S = 0.03
"""A story takes 12 s: no client that was made to interrupt it hears its end."""
WORDS_UNHEARD = 20
"""That it may have said beyond what its client had when it interrupted: 0.6 s, for two hops on a busy machine."""
REFUSAL = "I cannot help with that."
SUMMARY = ("They ask for a part.", "I look it up.")
_STORY = re.compile(r"tell me the long story of (\w+)", re.IGNORECASE)
_HEARD = re.compile(r"how much of your story did i hear", re.IGNORECASE)
_FORBIDDEN = re.compile(r"how do i break into a safe", re.IGNORECASE)
_REFUSED = re.compile(r"how often did you refuse", re.IGNORECASE)
_THINK = re.compile(r"think first: ", re.IGNORECASE)
_THOUGHTS = re.compile(r"how many thoughts do you have", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Told:
    """A line of the journal. ``words``: how many the model gave away. ``ended``: "" while it talks, then ``whole`` or
    ``stopped``."""

    story: str
    words: int = 0
    ended: str = ""


def read_journal(path: Path) -> list[Told]:
    """Every line so far, oldest first; none if nobody wrote one."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Told(**json.loads(line)) for line in lines]


class Talker:
    """Port ``LanguageModel``: stateless but for its journal, shared by all sessions."""

    name = "talker"

    def __init__(self, journal: Path | None) -> None:
        self._journal = journal
        self._rules: LanguageModel = RulesModel()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        said = next((item.text for item in reversed(request.items) if item.role == "user"), "")
        if found := _STORY.search(said):
            events = self._story(found[1])
        elif _HEARD.search(said):
            events = _say(f"You heard {_words(request.items)} words of it.")
        elif _FORBIDDEN.search(said):
            events = _refuse()
        elif _REFUSED.search(said):
            events = _say(f"I refused {sum(item.is_refusal for item in request.items)} times.")
        elif _THOUGHTS.search(said):
            events = _say(f"I have {_intact(request.items)} thoughts.")
        elif _THINK.search(said):
            events = self._thinking(request)
        else:
            events = self._rules.generate(request)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def _story(self, name: str) -> AsyncGenerator[ModelEvent, None]:
        self._note(Told(name))
        words = 0
        try:
            for words in range(1, STORY_WORDS + 1):
                yield TextDelta(f"word{words} ")
                await asyncio.sleep(WORD_S)
        finally:
            self._note(Told(name, words, "whole" if words == STORY_WORDS else "stopped"))
        yield ModelDone(Usage(output_tokens=words))

    async def _thinking(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Thoughts, then what the rules make of it: a call, or an answer that tells the call's result."""
        for event in _think(f"rs_{request.response_id.removeprefix('resp_')}"):
            yield event
            await asyncio.sleep(0)
        rest = self._rules.generate(replace(request, items=tuple(map(_without_think, request.items))))
        try:
            async for event in rest:
                yield event
        finally:
            await rest.aclose()

    def _note(self, told: Told) -> None:
        if self._journal is not None:
            with self._journal.open("a") as file:
                file.write(json.dumps(asdict(told)) + "\n")


async def _say(text: str) -> AsyncGenerator[ModelEvent, None]:
    for piece in re.findall(r"\s*\S+", text):
        yield TextDelta(piece)
        await asyncio.sleep(0)
    yield ModelDone(Usage(output_tokens=len(text.split())))


async def _refuse() -> AsyncGenerator[ModelEvent, None]:
    for piece in re.findall(r"\s*\S+", REFUSAL):
        yield RefusalDelta(piece)
        await asyncio.sleep(0)
    yield ModelDone(Usage(output_tokens=len(REFUSAL.split())))


def _think(name: str) -> Iterator[ModelEvent]:
    yield ReasoningDelta(name, 0, "")
    for part, text in enumerate(SUMMARY):
        for piece in re.findall(r"\s*\S+", text):
            yield ReasoningDelta(name, part, piece)
    summary = [{"type": "summary_text", "text": text} for text in SUMMARY]
    whole = {"type": "reasoning", "id": name, "summary": summary, "encrypted_content": _sealed(name)}
    yield ReasoningDone(name, json.dumps(whole))


def _without_think(item: Item) -> Item:
    content = tuple(replace(part, text=_THINK.sub("", part.text)) for part in item.content)
    return replace(item, content=content) if item.role == "user" else item


def _sealed(name: str) -> str:
    return f"sealed-{name}"


def _words(items: tuple[Item, ...]) -> int:
    """Of its stories, in the conversation as it was given."""
    return sum(len(re.findall(r"\bword\d+\b", item.text)) for item in items if item.role == "assistant")


def _intact(items: tuple[Item, ...]) -> int:
    """Thoughts that came back with the content that belongs to their id, each counted once."""
    thoughts = [json.loads(text) for item in items for text in item.reasoning]
    return len({one["id"] for one in thoughts if one.get("encrypted_content") == _sealed(one.get("id", ""))})


agent = Agent(llm=Talker(Path(os.environ[JOURNAL]) if JOURNAL in os.environ else None))
