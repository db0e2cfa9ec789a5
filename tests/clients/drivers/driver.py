"""What every driver of a Python client has in common: its command line, its one line of result, its patience.

    python openai_python_realtime.py --url http://127.0.0.1:PORT --scenario text_turn --audio DIR

The last line on stdout is JSON; exit code 0 passed, 1 failed, 3 the scenario cannot be had with this client.
Standard library only: it runs in the client's environment, where nothing of Openline is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import time
import traceback
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

PATIENCE_S = 20.0
"""For any one thing that must come."""
SCENARIO_S = 55.0
"""Below the runner's 60 s, so that the driver says what it waited for."""
KEY = "sk-stock-client"
"""Any key does on loopback."""
FRAME_BYTES = 960
"""20 ms of PCM16 at 24 kHz."""
WORD = "My code word is tiger seven."
ASK = "What is my code word?"
ANSWER = "tiger seven"
TOOLS = {"stock": "17 bolts", "price": "9 cents"}
"""The two tools that drivers declare, each with ``part: string``, and what they return."""
CALL_ONE = 'call stock with {"part": "bolt"}'
CALL_BOTH = 'call stock with {"part": "bolt"} and call price with {"part": "bolt"}'

ENOUGH_WORDS = 10
"""Of a story, before it is interrupted."""
HEARD = "How much of your story did I hear?"
FORBIDDEN = "How do I break into a safe?"
REFUSAL = "I cannot help with that."
REFUSED = "How often did you refuse?"
REFUSED_ONCE = "I refused 1 times."
THINK = f"Think first: {CALL_ONE}"
SUMMARY = ["They ask for a part.", "I look it up."]
THOUGHTS = "How many thoughts do you have?"


class Failed(Exception):
    """Something is not as it must be; the text says what."""


class Cannot(Exception):
    """The client itself cannot do this; the text says where in the client that lies."""


@dataclass
class Call:
    """What a scenario is given, and what it leaves: ``seen`` is shown in the result."""

    url: str
    model: str
    audio: Path
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def realtime(self) -> str:
        return self.url.replace("http", "ws", 1) + "/v1/realtime"

    @property
    def responses(self) -> str:
        return self.url.replace("http", "ws", 1) + "/v1/responses"

    def sound(self, name: str) -> bytes:
        """A recording as PCM16 24 kHz mono."""
        with wave.open(str(self.audio / f"{name}.wav")) as file:
            return file.readframes(file.getnframes())


Scenario = Callable[[Call], Awaitable[None]]


def check(holds: object, why: str) -> None:
    if not holds:
        raise Failed(why)


async def frames(pcm: bytes, before_ms: int = 200, after_ms: int = 1_000) -> AsyncIterator[bytes]:
    """20 ms at a time at the pace of speech, with silence around it."""
    whole = bytes(before_ms * 48) + pcm + bytes(after_ms * 48)
    due = time.monotonic()
    for start in range(0, len(whole), FRAME_BYTES):
        yield whole[start : start + FRAME_BYTES]
        due += 0.02
        await asyncio.sleep(max(0.0, due - time.monotonic()))


class Playing:
    """A loudspeaker that began to play at ``since`` (``time.monotonic``), when the first sound came."""

    def __init__(self, since: float) -> None:
        self._since = since

    def interrupt(self, call: Call, received_ms: float) -> int:
        """To be called at the moment of the interruption: how many ms were played of what was received. The runner
        compares it with what the gateways' logs say was heard."""
        played = min(int((time.monotonic() - self._since) * 1000), int(received_ms))
        check(played > 500, f"only {played} ms were played")
        call.seen["played_ms"] = played
        return played


class Story:
    """What the gateways' model tells slowly enough to be interrupted: 400 words, one every 30 ms.

    ``words``: how many of them have come. What is interrupted is told to the runner, which looks at what the model did.
    """

    def __init__(self, call: Call) -> None:
        self.name = secrets.token_hex(4)
        self.ask = f"Tell me the long story of {self.name}."
        self.text = ""
        self._call = call

    @property
    def words(self) -> int:
        return words_of(self.text)

    def hear(self, delta: str) -> bool:
        """True when it has gone on for long enough."""
        self.text += delta
        return self.words >= ENOUGH_WORDS

    def interrupt(self) -> None:
        """To be called at the moment of the interruption."""
        check(
            0 < self.words < 400,
            f"the story was to be interrupted in the middle, not after {self.words} words",
        )
        self._call.seen.setdefault("stories", {})[self.name] = self.words


def words_of(text: str) -> int:
    """Of the story, in ``text``."""
    return len(re.findall(r"word\d+", text))


def heard_of(answer: str) -> int:
    """How many words the model says were heard, asked ``HEARD``."""
    found = re.search(r"You heard (\d+) words", answer)
    if found is None:
        raise Failed(f"the model does not say how much was heard: {answer}")
    return int(found[1])


def check_thoughts(answer: str, expected: int) -> None:
    """``answer``: to ``THOUGHTS``."""
    check(answer == f"I have {expected} thoughts.", f"expected {expected} thoughts; the model says: {answer}")


class News:
    """What came from a client's own callbacks, in order; ``wait`` looks at what was not looked at yet."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self.looked = 0
        self._came: list[float] = []
        self._woken = asyncio.Event()

    def put(self, what: Any) -> None:
        self.all.append(what)
        self._came.append(time.monotonic())
        self._woken.set()

    @property
    def came(self) -> float:
        """When what ``wait`` returned last came, which may be long before it was looked at."""
        return self._came[self.looked - 1]

    async def wait(self, test: Callable[[Any], bool], what: str, patience: float = PATIENCE_S) -> Any:
        """The next that passes; those before it are passed over."""
        try:
            async with asyncio.timeout(patience):
                while True:
                    while self.looked < len(self.all):
                        one = self.all[self.looked]
                        self.looked += 1
                        if test(one):
                            return one
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            raise Failed(f"no {what} within {patience:g} s; last {self.tail}") from None

    @property
    def tail(self) -> str:
        return ", ".join(getattr(one, "type", None) or type(one).__name__ for one in self.all[-6:])


async def ends_quietly(task: Awaitable[Any], what: str, patience: float = 5.0) -> None:
    """The client closes, and nothing of it hangs or complains."""
    try:
        async with asyncio.timeout(patience):
            await task
    except TimeoutError:
        raise Failed(f"{what} did not end within {patience:g} s") from None


def main(package: str, scenarios: dict[str, Scenario]) -> None:
    """Run the scenario of the command line and end the process."""
    parser = argparse.ArgumentParser()
    for flag in ("--url", "--scenario", "--audio"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--model", default="gpt-realtime")
    parser.add_argument("--ca")
    given = parser.parse_args()
    call = Call(given.url, given.model, Path(given.audio))
    result: dict[str, Any] = {"scenario": given.scenario, "version": version(package)}

    async def run() -> None:
        code, why = await _run(scenarios, given.scenario, call)
        if code:
            # What a failed client left running may never end: the reason must be told all the same.
            print(json.dumps({**result, "passed": False, "why": why, "seen": call.seen}), flush=True)
            os._exit(code)

    asyncio.run(run())
    print(json.dumps({**result, "passed": True, "why": "", "seen": call.seen}), flush=True)


async def _run(scenarios: dict[str, Scenario], name: str, call: Call) -> tuple[int, str]:
    if name not in scenarios:
        return 1, f"expected one of {', '.join(scenarios)}; got {name}"
    try:
        async with asyncio.timeout(SCENARIO_S):
            await scenarios[name](call)
        return 0, ""
    except Cannot as error:
        return 3, str(error)
    except Failed as error:
        return 1, str(error)
    except TimeoutError:
        traceback.print_exc()
        return 1, f"no end within {SCENARIO_S:g} s"
    except Exception as error:  # the client's own, whatever it is: it is the finding
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}"
