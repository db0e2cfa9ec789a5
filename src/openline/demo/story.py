"""The demo's story in acts. Each shows what happens while it happens; the checks come after the last one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from openline.cli.client import Address, LineClosed
from openline.demo.caller import Caller
from openline.demo.phrases import Fact, Phrases
from openline.demo.process import GatewayProcess
from openline.demo.screen import Screen

HEARD_BEFORE_BARGE_IN_MS = 2_600
HEARD_BEFORE_CUT_MS = 2_200
AWAY_S = 0.8
"""How long the caller has no line: long enough to be seen, far below the resume window."""
HEARD_BEFORE_QUESTION_MS = 5_500
"""Of the same reply: three seconds more of it after the cut."""
HEARD_BEFORE_KILL_MS = 900
ACTS = ("about", "stop", "go_on", "time", "", "ask", "bye")
"""Names of what the caller says, in order; "" is the fact."""


class Story:
    """``tell`` plays all acts. Raises TimeoutError or LineClosed where the story stops being true."""

    def __init__(
        self, screen: Screen, book: Phrases, fact: Fact, gateway: GatewayProcess, grammar: Path
    ) -> None:
        self.screen = screen
        self.book = book
        self.fact = fact
        self.gateway = gateway
        self.caller = Caller(Address.of(gateway.url), screen)
        self.session = ""
        self.cut_after = ""
        self.answer = ""
        self.answer_range_ms = (0, 0)
        """Where the answer stands in the recording."""
        self.restart_ms = 0.0
        self._grammar = grammar

    async def tell(self) -> None:
        await self._call_begins()
        await self._barge_in()
        await self._line_is_cut()
        await self._tool_runs()
        await self._fact_is_told_and_gateway_killed()
        await self._fact_is_known()
        await self._call_ends()

    async def _call_begins(self) -> None:
        screen = self.screen
        screen.title("A call, and a caller who does not wait for the end")
        await self.caller.connect()
        self.session = self.caller.session
        screen.say("line", f"open: session {self.session}")

    async def _barge_in(self) -> None:
        """A long answer, and a caller who does not wait for its end."""
        mark = await self.caller.say(self.book.by_name("about"))
        await self.caller.committed(mark)
        await self.caller.hears(HEARD_BEFORE_BARGE_IN_MS)
        mark = await self.caller.say(self.book.by_name("stop"))
        await self.caller.committed(mark)
        await self.caller.hears_all()

    async def _line_is_cut(self) -> None:
        screen, caller = self.screen, self.caller
        screen.title("The line is cut in mid-sentence")
        mark = await caller.say(self.book.by_name("go_on"))
        await caller.committed(mark)
        await caller.hears(HEARD_BEFORE_CUT_MS)
        self.cut_after = caller.line.last_event_id
        heard = caller.cut()
        screen.say("agent", f"“{heard} …")
        screen.say("line", "CUT: no close frame, no goodbye", strong=True)
        await asyncio.sleep(AWAY_S)
        created, took_ms = await caller.come_back()
        told = created["openline"]
        screen.say("line", f"back in {took_ms:.0f} ms, on after {told['resumed_from']}")
        await caller.hears(HEARD_BEFORE_QUESTION_MS)

    async def _tool_runs(self) -> None:
        mark = await self.caller.say(self.book.by_name("time"), title="A tool runs")
        await self.caller.committed(mark)
        await self.caller.hears_all()

    async def _fact_is_told_and_gateway_killed(self) -> None:
        screen, caller, gateway = self.screen, self.caller, self.gateway
        screen.title("The gateway is killed in mid-call")
        screen.note(f"One of {len(self.book.facts)} facts was drawn; only the caller knows it.")
        mark = await caller.say(self.fact.statement)
        await caller.committed(mark)
        await caller.hears(HEARD_BEFORE_KILL_MS)
        pid = gateway.pid
        await gateway.kill()
        heard = caller.lost()
        screen.say("agent", f"“{heard} …")
        screen.say("gateway", f"KILLED: kill -9 {pid}, while it spoke", strong=True)
        write_grammar(self._grammar, self._left_to_say())
        started = time.monotonic()
        # The caller does not know: it tries again and again, as any client does.
        back = asyncio.create_task(caller.come_back())
        try:
            await gateway.start(gateway.port)
            up_ms = (time.monotonic() - started) * 1000
            created, _ = await back
        finally:
            back.cancel()
        self.restart_ms = (time.monotonic() - started) * 1000
        told = created["openline"]
        screen.say("gateway", f"process {gateway.pid} listens, {up_ms:.0f} ms after the kill")
        screen.say("line", f"back in the same call after {self.restart_ms:.0f} ms, epoch {told['epoch']}")
        self._say_what_was_settled(mark)
        # Had nothing of the reply been heard, it would be asked for again: hear that out.
        await caller.until(lambda: not caller.playback.is_playing)

    def _say_what_was_settled(self, mark: int) -> None:
        """What the new gateway made of the reply that the old one died in."""
        line = self.caller.line
        for event in line.seen(lambda e: e["type"] == "response.done", since=mark):
            if event["response"]["status"] == "incomplete":
                heard = line.seen(lambda e: e["type"] == "openline.item.heard", since=mark)
                ms = heard[-1]["audio_end_ms"] if heard else 0
                self.screen.note(f"the reply it died in is closed as incomplete, {ms / 1000:.1f} s heard")

    async def _fact_is_known(self) -> None:
        mark = await self.caller.say(self.book.by_name("ask"))
        await self.caller.committed(mark)
        stopped = await self.caller.line.wait_for(
            lambda e: e["type"] == "input_audio_buffer.speech_stopped", since=mark
        )
        self.answer = await self.caller.hears_all()
        self.answer_range_ms = (stopped["audio_end_ms"], 0)

    async def _call_ends(self) -> None:
        caller = self.caller
        mark = await caller.say(self.book.by_name("bye"))
        started = await caller.line.wait_for(
            lambda e: e["type"] == "input_audio_buffer.speech_started", since=mark
        )
        self.answer_range_ms = (self.answer_range_ms[0], started["audio_start_ms"])
        await caller.committed(mark)
        await caller.hears_all()
        mark = caller.line.mark()
        caller.line.send("openline.session.end", reason="goodbye")
        try:
            await caller.line.wait_for(lambda e: e["type"] == "openline.session.ended", since=mark)
        except LineClosed as closed:
            if closed.status != 4410:
                raise
        self.screen.say("line", "the caller hangs up; the session has ended")

    def _left_to_say(self) -> list[str]:
        """What comes after the kill, in order: the script of a recognizer that only plays at hearing."""
        return [self.book.by_name(name).text for name in ACTS[ACTS.index("") + 1 :]]


def spoken_texts(book: Phrases, fact: Fact) -> list[str]:
    """All that the caller says, in order."""
    return [book.by_name(name).text if name else fact.statement.text for name in ACTS]


def write_grammar(path: Path, phrases: Sequence[str]) -> None:
    path.write_text("".join(f"{phrase}\n" for phrase in phrases), encoding="utf-8")
