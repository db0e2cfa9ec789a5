"""A provider that can be steered, and knows what it was told: what the tests of steering share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from openline.testing.fake_responses import FakeProvider
from openline.testing.fake_responses_parts import Reply

TALK = "talk"


def texts(known: list[dict[str, Any]]) -> list[str]:
    """A conversation as the provider has it."""
    found = []
    for item in known:
        content = item.get("content") or item.get("output") or item.get("name", "")
        found.append(content if isinstance(content, str) else content[0]["text"])
    return found


@dataclass
class Provider:
    """The fake: begins to talk when it is asked to, and holds; calls for "call"; else says how much it knows."""

    fake: FakeProvider = field(init=False)
    never: asyncio.Event = field(default_factory=asyncio.Event)
    known: list[list[str]] = field(default_factory=list)
    """The whole conversation of each response, in order."""

    def __post_init__(self) -> None:
        self.fake = FakeProvider(self.reply)

    def reply(self, body: dict[str, Any]) -> Reply:
        self.known.append(texts(body["input"]))
        last = self.known[-1][-1]
        if last == TALK:
            return Reply("begun to talk", hold=self.never)
        if last == "call":
            return Reply(calls=(("check_stock", "{}"),), hold=self.never)
        return Reply(f"{len(self.known[-1])}: {last}")

    @property
    def creates(self) -> list[dict[str, Any]]:
        return [asked.body for asked in self.fake.requests]
