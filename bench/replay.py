"""Replay with verification: stored steps of ordinary conversations, decoded, run again, facts and effects compared.

The conversations are made by the core itself: a user turn by voice, a reply, every second turn a tool
call with its output. Decoding is part of the time, reading from the disk is not (it is 2 % of it).
"""

from __future__ import annotations

import time
from typing import Any

from bench.gateway import GATEWAY_CORE, HARNESS_CORE
from bench.load_file import Load
from bench.proc import pin
from openline.core import inputs as i
from openline.core.effects import OpenLink, StartResponse
from openline.core.model import AudioRange, Item, ResponseRequest, SessionConfig, Usage
from openline.core.session import Session, Step
from openline.types import CallId, ConnectionId, Epoch, ItemId, Now, ResponseId, SessionId
from openline.wire.envelope import decode_step, effect_digest, encode_step

CONN = ConnectionId("conn_1")


class Conversation:
    """A session with the log it would have; ``turn`` adds one exchange. Only steps with facts are stored."""

    def __init__(self, number: int) -> None:
        self.stored: list[bytes] = []
        self._session = Session()
        self._now_ms = 1_000
        self._link_epoch = 0
        self._items = 0
        session = SessionId(f"sess_{number:06}")
        self._do(i.OpenSession(session, "default", Epoch(1), "bench", SessionConfig()))
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
        if number % 2:
            response = self._tool(response, number)
        self._speak(response)

    def _tool(self, response: ResponseId, number: int) -> ResponseId:
        call = CallId(f"call_{number}")
        self._do(i.CallStarted(self._link_epoch, response, 0, call, "lookup"))
        self._do(i.CallFinished(self._link_epoch, response, 0, '{"part":"M8x40","count":12}'))
        self._do(i.ResponseGenerated(self._link_epoch, response, Usage(100, 20)))
        self._do(i.ResponseReleased(response))
        output = Item(ItemId(f"item_out_{number}"), "function_call_output", "tool", call_id=call, output="12")
        self._do(i.CreateItem(output, conn=CONN))
        return _asked(self._do(i.CreateResponse(ResponseRequest(), conn=CONN)))

    def _speak(self, response: ResponseId) -> None:
        self._do(i.MessageStarted(self._link_epoch, response, 0))
        self._do(i.ResponseGenerated(self._link_epoch, response, Usage(100, 50)))
        self._do(
            i.MessageFinished(response, 0, "an answer of about sixty characters, said in three seconds", 3000)
        )
        self._do(i.ResponseReleased(response))

    def _do(self, given: i.Input) -> Step:
        self._now_ms += 250
        now = Now(self._now_ms * 1_000_000, self._now_ms)
        step = self._session.handle(given, now)
        if step.facts:
            self.stored.append(encode_step(given, now, step.facts, step.effects))
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
    turns = int(load.number("turns", 200))
    conversations = []
    for number in range(5 if is_quick else int(load.number("sessions", 50))):
        conversation = Conversation(number)
        for turn in range(turns):
            conversation.turn(turn)
        conversations.append(conversation)
    pin(GATEWAY_CORE)
    rates = []
    for _ in range(int(load.number("repeats", 5))):
        began, steps = time.process_time(), 0
        for conversation in conversations:
            stored = (decode_step(body) for body in conversation.stored)
            _session, count = Session.replay(stored, effect_digest)
            steps += count
        rates.append(steps / (time.process_time() - began))
    pin(HARNESS_CORE)
    rates.sort()
    size = sum(len(body) for conversation in conversations for body in conversation.stored)
    return {
        "steps_per_s": round(rates[len(rates) // 2]),
        "steps_per_s_best": round(rates[-1]),
        "steps": sum(len(conversation.stored) for conversation in conversations),
        "bytes_per_step": round(size / sum(len(conversation.stored) for conversation in conversations)),
    }
