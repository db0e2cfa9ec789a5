"""The agent of the kill and cut stories: hears what is next on its list, and has a tool that takes its time.

Ears are a twin, so that every utterance is a turn; the voice is the one that is installed, so replies are
real audio. Served as ``openline serve call_agent:agent``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

from openline import Agent
from openline.testing.speech import EnergyDetector, ScriptedRecognizer

SAID = (
    "Tell me about the open line.",
    'call slow with {"word": "spoon"}',
    "Hello there.",
    "Tell me about the open line.",
    'call slow with {"word": "fork"} and call slow with {"word": "knife"}',
    "Remember, my code word is tiger seven.",
)
SLOW_S = 0.8


class Ears(ScriptedRecognizer):
    """Hears ``SAID`` over and over, whoever speaks."""

    def __init__(self) -> None:
        super().__init__(slots=32)
        self._said: Iterator[str] = itertools.cycle(SAID)

    def take_text(self) -> str:
        return next(self._said)


agent = Agent(stt=Ears(), vad=EnergyDetector)


@agent.tool
async def slow(word: str) -> str:
    """Take a while and give the word back."""
    await asyncio.sleep(SLOW_S)
    return word
