"""Replay with verification: stored steps of ordinary conversations, decoded, run again, facts and effects compared.

The conversations are made by the core itself: a user turn by voice and a reply with its checkpoints, its
recording and what was heard of it; of four turns one has a tool call of the client's, one a tool call of
the gateway's, one is interrupted. Decoding is part of the time, reading from the disk is not (it is 2 % of
it). One very long call is measured beside the ordinary ones: no step may cost more because of what was said
before it. As in ``openline replay``, nobody looks for garbage meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.gateway import GATEWAY_CORE, HARNESS_CORE
from bench.load_file import Load
from bench.proc import pin, unpin
from openline.adapters.log_sqlite import SqliteLog
from openline.core import inputs as i
from openline.core.effects import OpenLink, StartResponse
from openline.core.facts import OutputItemAdded
from openline.core.model import AudioRange, Cut, Item, ResponseRequest, SessionConfig, ToolSpec, Usage
from openline.core.session import Session, Step
from openline.ports import StepRecord
from openline.types import CallId, ConnectionId, Epoch, ItemId, Now, ResponseId, Seq, SessionId
from openline.wire.envelope import decode_step, effect_digest, encode_step

CONN = ConnectionId("conn_1")
TOOLS = (ToolSpec("lookup"), ToolSpec("stock", runner="gateway"))
ANSWER = "an answer of about sixty characters, said in three seconds"


class Conversation:
    """A session with the log it would have; ``turn`` adds one exchange. Only steps with facts are stored."""

    def __init__(self, number: int) -> None:
        self.stored: list[bytes] = []
        self.records: list[StepRecord] = []
        self._session = Session()
        self._now_ms = 1_000
        self._link_epoch = 0
        self._items = 0
        self.name = SessionId(f"sess_{number:06}")
        self._do(i.OpenSession(self.name, "default", Epoch(1), "bench", SessionConfig(tools=TOOLS)))
        self._do(i.Attach(CONN))
        if self._link_epoch:
            self._do(i.LinkOpened(self._link_epoch, "load"))

    def turn(self, number: int) -> None:
        start = number * 24_000 * 5
        self._do(i.SpeechStarted(self._link_epoch, start))
        self._do(i.SpeechStopped(self._link_epoch, start + 24_000))
        text = "what the caller said, some eighty characters of it, as callers do say things"
        step = self._do(i.TurnFinal(self._link_epoch, text, 0.9, AudioRange(start, start + 24_000)))
        response = _asked(step)
        if number % 4 == 1:
            response = self._client_tool(response, number)
        elif number % 4 == 2:
            response = self._gateway_tool(response, number)
        if number % 4 == 3:
            self._interrupt(response, start + 24_000 * 3)
        else:
            self._speak(response)
        for track in ("caller", "agent"):
            self._do(i.SegmentRecorded(track, start, 24_000 * 5, f"{track}/{number}.flac", "0" * 64))

    def _gateway_tool(self, response: ResponseId, number: int) -> ResponseId:
        call = CallId(f"call_{number}")
        self._do(i.CallStarted(self._link_epoch, response, 0, call, "stock"))
        self._do(i.CallFinished(self._link_epoch, response, 0, '{"part":"M8x40"}'))
        self._do(i.ResponseGenerated(self._link_epoch, response, Usage(100, 20)))
        self._do(i.ToolSettled(call, 1, "succeeded", "12"))
        return _asked(self._do(i.ResponseReleased(response)))

    def _client_tool(self, response: ResponseId, number: int) -> ResponseId:
        call = CallId(f"call_{number}")
        self._do(i.CallStarted(self._link_epoch, response, 0, call, "lookup"))
        self._do(i.CallFinished(self._link_epoch, response, 0, '{"part":"M8x40","count":12}'))
        self._do(i.ResponseGenerated(self._link_epoch, response, Usage(100, 20)))
        self._do(i.ResponseReleased(response))
        output = Item(ItemId(f"item_out_{number}"), "function_call_output", "tool", call_id=call, output="12")
        self._do(i.CreateItem(output, conn=CONN))
        return _asked(self._do(i.CreateResponse(ResponseRequest(), conn=CONN)))

    def _speak(self, response: ResponseId) -> None:
        item = self._begin_to_speak(response)
        self._do(i.ResponseGenerated(self._link_epoch, response, Usage(100, 50)))
        self._do(i.MessageProgress(response, 0, Cut(item, ANSWER, 3000, 2000, "paced", 40)))
        self._do(i.MessageFinished(response, 0, ANSWER, 3000))
        self._do(i.ResponseReleased(response))
        self._do(i.Heard(Cut(item, ANSWER, 3000, 3000, "paced", len(ANSWER))))

    def _interrupt(self, response: ResponseId, at: int) -> None:
        """The caller says a word into the reply: it is cut, and the word gets an answer."""
        item = self._begin_to_speak(response)
        cut = Cut(item, ANSWER, 3000, 1200, "paced", 25)
        self._do(i.SpeechStarted(self._link_epoch, at, (cut,)))
        self._do(i.SpeechStopped(self._link_epoch, at + 24_000))
        final = i.TurnFinal(self._link_epoch, "no, the other one", 0.9, AudioRange(at, at + 24_000))
        self._speak(_asked(self._do(final)))

    def _begin_to_speak(self, response: ResponseId) -> ItemId:
        step = self._do(i.MessageStarted(self._link_epoch, response, 0))
        item = next(fact.item.id for fact in step.facts if isinstance(fact, OutputItemAdded))
        self._do(i.MessageProgress(response, 0, Cut(item, ANSWER[:20], 1000, 900, "paced", 18)))
        return item

    def _do(self, given: i.Input) -> Step:
        self._now_ms += 250
        now = Now(self._now_ms * 1_000_000, self._now_ms)
        step = self._session.handle(given, now)
        if step.facts:
            body = encode_step(given, now, step.facts, step.effects)
            first = Seq(self._session.state.seq - len(step.facts) + 1)
            types = tuple(fact.TYPE for fact in step.facts)
            self.stored.append(body)
            self.records.append(StepRecord(self.name, Epoch(1), first, types, body, self._now_ms))
        for effect in step.effects:
            if isinstance(effect, OpenLink):
                self._link_epoch = effect.link_epoch
        return step


def _asked(step: Step) -> ResponseId:
    found = [effect.response_id for effect in step.effects if isinstance(effect, StartResponse)]
    if not found:
        names = [type(effect).__name__ for effect in step.effects]
        raise RuntimeError(f"expected StartResponse after {type(step.input).__name__}; got {names}")
    return found[0]


def measure(load: Load, *, is_quick: bool) -> dict[str, Any]:
    sessions = 5 if is_quick else int(load.number("sessions", 50))
    ordinary = [_conversation(number, int(load.number("turns", 200))) for number in range(sessions)]
    long = [_conversation(sessions, 500 if is_quick else int(load.number("long_turns", 4_000)))]
    repeats = int(load.number("repeats", 5))
    gc.collect()
    gc.freeze()
    gc.disable()
    pin(GATEWAY_CORE)
    try:
        rates = sorted(_rate(ordinary) for _ in range(repeats))
        long_rates = sorted(_rate(long) for _ in range(repeats))
    finally:
        pin(HARNESS_CORE)
        gc.enable()
        gc.unfreeze()
    steps = sum(len(conversation.stored) for conversation in ordinary)
    size = sum(len(body) for conversation in ordinary for body in conversation.stored)
    return {
        "steps_per_s": round(rates[len(rates) // 2]),
        "steps_per_s_best": round(rates[-1]),
        "steps": steps,
        "bytes_per_step": round(size / steps),
        "long_steps_per_s": round(long_rates[len(long_rates) // 2]),
        "long_steps": len(long[0].stored),
        **_by_command(ordinary, repeats),
    }


def _by_command(conversations: list[Conversation], repeats: int) -> dict[str, Any]:
    """``openline replay --all --verify`` over the same calls in a data directory, its own figure: all cores, wall
    time, reading and the start of processes included."""
    with tempfile.TemporaryDirectory(prefix="openline-bench-") as folder:
        asyncio.run(_store(Path(folder), conversations))
        rates = sorted(_command_rate(folder) for _ in range(repeats))
    return {"command_steps_per_s": rates[len(rates) // 2], "command_rates": rates}


async def _store(folder: Path, conversations: list[Conversation]) -> None:
    log = SqliteLog(folder)
    await log.open()
    try:
        for conversation in conversations:
            await log.acquire(conversation.name, "bench", create=True)
            for record in conversation.records:
                log.append(record)
            await log.flush()
    finally:
        await log.close()


def _command_rate(folder: str) -> int:
    command = [sys.executable, "-m", "openline", "replay", "--all", "--verify", "--data", folder]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=unpin, check=True)
    found = re.search(r"steps, ([0-9,]+) steps/s", done.stdout.splitlines()[-1])
    if found is None:
        raise RuntimeError(f"expected the sum of 'openline replay'; got {done.stdout[-200:]!r}")
    return int(found.group(1).replace(",", ""))


def _conversation(number: int, turns: int) -> Conversation:
    conversation = Conversation(number)
    for turn in range(turns):
        conversation.turn(turn)
    return conversation


def _rate(conversations: list[Conversation]) -> float:
    """Verified steps per second of processor time."""
    began, steps = time.process_time(), 0
    for conversation in conversations:
        stored = (decode_step(body) for body in conversation.stored)
        _session, count = Session.replay(stored, effect_digest)
        steps += count
    return steps / (time.process_time() - began)
