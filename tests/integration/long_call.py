"""A long conversation with a provider that fails: a scripted caller, faults drawn from a seed, and the account of it.

The gateway's core and runtime, the real upstream link and its sockets run in virtual time; only the provider is a
double. What the caller was told is rendered to frames as a client gets them, and everything is judged from these, from
the log, and from what the provider has.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from picows import WSProtocolError

from openline.adapters.g711 import Law, codec_of, compress
from openline.adapters.link_openai_realtime import (
    OpenAIRealtimeFactory,
    OpenAIRealtimeLink,
    OpenAIRealtimeSettings,
)
from openline.adapters.resample import Resampler
from openline.core import inputs as i
from openline.core.facts import Fact
from openline.core.model import (
    AudioFormat,
    Item,
    Limits,
    Part,
    Problem,
    ResponseRequest,
    SessionConfig,
    ToolSpec,
    TurnDetection,
)
from openline.core.value import replace
from openline.ports import LinkSink
from openline.runtime.driver import SessionDriver
from openline.testing.fake_realtime import REPLY_FAULTS, FakeConnection, FakeRealtime, FakeReply
from openline.testing.scripts import scripted_silence, scripted_speech, words_in_speech
from openline.testing.virtual_net import run_virtual_net
from openline.types import CallId, Epoch, ItemId, ResponseId, Seq, SessionId
from openline.wire.envelope import decode_step
from openline.wire.render import View, render
from openline.wire.upstream import PENDING, message_object
from runtime_gateway import Agent, Caller, House, LateRecordings

BUDGET_S = Limits().silence_budget_ms / 1000
SLACK_S = 1.0
"""Between a deadline and the frame that says so: a commit, and a tick of the playout."""
SETTLE_S = 60.0
"""A turn that is not over by then is not waited for: two silence budgets, a reconnect, and a long reply."""
TAPE_S = 60
"""Seconds of a recording that the double keeps; nobody asks for more than half a minute."""
CLOSES = (1000, 1001, 1005, 1006, 1008, 1011, 1012)
OPENS = (
    "close:1000",
    "close:1001",
    "close:1005",
    "close:1006",
    "close:1011",
    "http:429",
    "http:500",
    "http:503",
)
SLOW_OPENS = ("slow:2", "slow:11", "silent", "busy")
REFUSALS = ("key", "model", "quota", "http:401", "http:200", "garbage", "close:1008")
ODDITIES = ("freeze", "expire", "error", "garbage", "binary", "pong", "delay", "late_words", "twice")


@dataclass(frozen=True, slots=True)
class Plan:
    """``storms``: (from, to) in seconds in which the faults strike; outside of them the provider is as it should be."""

    seed: int
    seconds: float
    faults: int
    storms: tuple[tuple[float, float], ...]
    cap_s: float
    rotate_s: float
    rotate_by_s: float
    is_recorded: bool = True
    law: AudioFormat = "pcm"
    """What the caller sends and is sent."""
    is_transcoded: bool = False
    """The provider takes PCM16 alone, and refuses the rest in a different way at each seed."""

    @property
    def again(self) -> str:
        return f"OPENLINE_SEED={self.seed} python -m pytest tests/integration/test_long_call.py"


@dataclass(slots=True)
class Said:
    """One thing that the caller said. ``over`` once it waited for nothing more."""

    word: str
    how: str
    began: float
    ended: float = 0.0
    was_cut: bool = False
    """The caller went on before it was answered."""


class Tape(LateRecordings):
    """Of each track the last minute."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: dict[str, list[tuple[int, bytes]]] = {}
        self._ends: dict[str, int] = {}

    def store(self, track: str, start: int, pcm: bytes) -> None:
        pieces = self._pieces.setdefault(track, [])
        pieces.append((start, pcm))
        self._ends[track] = start + len(pcm) // 2
        while pieces[0][0] < start - TAPE_S * 24_000:
            pieces.pop(0)

    async def read(self, session: SessionId, track: str, start: int, end: int) -> bytes:
        out = bytearray(2 * (end - start))
        for first, pcm in self._pieces.get(track, []):
            low, high = max(start, first), min(end, first + len(pcm) // 2)
            if low < high:
                out[2 * (low - start) : 2 * (high - start)] = pcm[2 * (low - first) : 2 * (high - first)]
        return bytes(out)

    async def length(self, session: SessionId, track: str) -> int:
        return self._ends.get(track, 0)


class Listener(Caller):
    """A client that keeps each frame with the moment it came."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[float, dict[str, Any]]] = []
        self._epoch = Epoch(0)
        self._pending: list[tuple[int, Fact]] = []
        self._now = asyncio.get_running_loop().time

    def _told(self, frame: dict[str, Any]) -> None:
        self.frames.append((self._now(), frame))

    def show(self, epoch: Epoch, first_seq: Seq, facts: Sequence[Fact]) -> None:
        self._epoch = epoch
        self._pending += [(first_seq + offset, fact) for offset, fact in enumerate(facts)]
        self.durable(Seq(self.mark))

    def durable(self, mark: Seq) -> None:
        self.mark = max(self.mark, mark)
        view = View(True, self.conn, "speaker", strict=False, session=SessionId("s"))
        while self._pending and self._pending[0][0] <= self.mark:
            seq, fact = self._pending.pop(0)
            for _, frame in render(fact, epoch=self._epoch, seq=Seq(seq), view=view):
                self._told(json.loads(frame))

    def text_delta(self, response: ResponseId, item: ItemId, index: int, text: str, spoken: bool) -> None:
        self._told({"type": "delta.text", "response_id": response, "delta": text})

    def audio_delta(self, response: ResponseId, item: ItemId, index: int, pcm: bytes) -> None:
        self._told({"type": "delta.audio", "response_id": response})

    def error(self, command: str, problem: Problem) -> None:
        self._told({"type": "error", "code": problem.code, "message": problem.message})

    def of(self, *kinds: str) -> list[tuple[float, dict[str, Any]]]:
        return [(at, frame) for at, frame in self.frames if frame["type"] in kinds]


MAKE_CODEC = codec_of(Resampler)
MARK, ONE, ZERO = 28_000, 13_000, 5_000
"""Loudness of a telephone's words: what is encoded, resampled and encoded again still tells them apart."""
BIT_MS, BITS = 40, 10
"""Where what is heard again joins what is heard now, up to 6 ms are missing: filters hold so much."""


def spoken_in_tones(text: str, ms: int, law: Law) -> bytes:
    """``u17`` as a mark of 120 ms and ten bits of 40 ms, then more of the same voice, then silence; G.711."""
    number = int(text.removeprefix("u")) % (1 << BITS)
    levels = [MARK] * 3 + [ONE if number >> bit & 1 else ZERO for bit in range(BITS)]
    levels += [ZERO] * max(0, ms // BIT_MS - len(levels))
    wave = [math.sin(2 * math.pi * at / 16) for at in range(8 * BIT_MS)]  # 500 Hz
    samples = array("h", (int(level * value) for level in levels for value in wave))
    return compress(law, samples.tobytes() + bytes(2 * 8 * 700))


def words_in_tones(pcm: bytes) -> str:
    """The numbers that are in a turn (24 kHz), wherever they begin."""
    samples, step = array("h", pcm[: len(pcm) // 2 * 2]), 24 * 5
    peaks = [max(map(abs, samples[at : at + step]), default=0) for at in range(0, len(samples), step)]
    words, at = [], 0
    while at < len(peaks):
        if peaks[at] < 20_000:
            at += 1
            continue
        while at < len(peaks) and peaks[at] >= 20_000:
            at += 1
        # Windows are of 5 ms, and the mark ends in the one before: read in the middle of each bit.
        bits = peaks[at + 4 : at + 4 + 8 * BITS : 8]
        if len(bits) == BITS and min(bits) > 2_000:
            words.append(f"u{sum((peak > 8_500) << bit for bit, peak in enumerate(bits))}")
    return " ".join(words)


class WatchedLink(OpenAIRealtimeLink):
    """Notes what each connection was given, to be compared with what the provider has."""

    def __init__(self, call: LongCall, *parts: Any) -> None:
        super().__init__(*parts)
        self._call = call

    async def open(self, sink: LinkSink, config: SessionConfig, items: Sequence[Item]) -> None:
        await super().open(sink, config, items)
        self._call.given.append((self._call.fake.latest, history(items)))

    async def _prepare(self) -> None:
        self._call.spares += 1
        await super()._prepare()
        self._spare = self._call.fake.latest

    def _swap(self, old: Any, standby: Any) -> None:
        assert self._sink is not None
        before, expected = self.rotations, history(self._sink.conversation())
        super()._swap(old, standby)
        if self.rotations > before:
            compare = asyncio.get_running_loop().call_later
            compare(1.0, self._call.compare, self._spare, expected)


def history(items: Sequence[Item]) -> list[tuple[str, str]]:
    """What was said, by whom, as the session has it."""
    return [(str(item.role), item.text) for item in items if item.type == "message" and message_object(item)]


def provider_history(items: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """The same, as the provider has it."""
    told = []
    for item in items:
        if item["type"] == "message":
            texts = (part.get("text") or part.get("transcript") or "" for part in item.get("content", []))
            told.append((item["role"], " ".join(texts)))
    return told


def untold(items: Sequence[dict[str, Any]]) -> str:
    """The last result of a tool that nobody was told. A slow tool's stands where it was called, before what was said
    since: asked again with nothing new at the end, a model speaks to that."""
    told = {text for role, text in provider_history(items) if role == "assistant"}
    results = [item["output"] for item in items if item["type"] == "function_call_output"]
    return next((r for r in reversed(results) if r != PENDING and f"result {r}" not in told), "")


class LongCall:
    """One plan, played. ``struck`` counts the faults by kind; ``said`` is what the caller said, in order."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.dice = random.Random(plan.seed)
        self.struck: Counter[str] = Counter()
        self.said: list[Said] = []
        self.given: list[tuple[FakeConnection, list[tuple[str, str]]]] = []
        self.renewals: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]] = []
        self.tool_runs: Counter[str] = Counter()
        self.reply_faults: list[str] = []
        self.facts: list[tuple[float, Fact]] = []
        self.rotations = 0
        self.spares = 0

    def play(self) -> LongCall:
        random.seed(self.plan.seed)  # the runtime's jitter
        run_virtual_net(self._play())
        return self

    async def _play(self) -> None:
        plan = self.plan
        self.loop: Any = asyncio.get_running_loop()
        self.fake = await FakeRealtime(self.answer).start()
        self.fake.transcribe = words_in_speech if plan.law == "pcm" else words_in_tones
        self.fake.cap_s = plan.cap_s
        if plan.is_transcoded:
            self.fake.formats = {"audio/pcm"}
            self.fake.refusal = ("typed", "bare", "ignored")[plan.seed % 3]
        settings = OpenAIRealtimeSettings(rotate_s=plan.rotate_s, rotate_by_s=plan.rotate_by_s)
        factory = OpenAIRealtimeFactory(self.fake.url, "gpt-realtime", lambda: "sk-test", settings=settings)
        agent = Agent(tool_functions={"stock": self.stock})
        self.home = House(
            agent=agent,
            links=lambda session, config: WatchedLink(self, factory._provider, settings, MAKE_CODEC),  # type: ignore[arg-type]  # a house knows scripted links
            recordings=Tape() if plan.is_recorded else None,
            make_codec=MAKE_CODEC,
        )
        await self.home.log.open()
        await self.home.gateway.start()
        self.client = Listener()
        tools = (*agent.tools, ToolSpec("screen", runner="client"))
        config = SessionConfig(tools=tools, turn_detection=TurnDetection(silence_duration_ms=200))
        config = replace(config, input_format=plan.law, output_format=plan.law)
        self.driver: SessionDriver = await self.home.gateway.create("default", config)
        self.home.attach(self.driver, self.client, opted_in=True)
        storm = self.loop.create_task(self.storm())
        tools_task = self.loop.create_task(self.show_screens())
        while self.loop.time() < plan.seconds or not storm.done():
            await self.turn()
            if not self.said[-1:] or not self.said[-1].was_cut:
                await asyncio.sleep(self.dice.uniform(0.3, 5))
        await storm
        await self.over(SETTLE_S)
        tools_task.cancel()
        session = self.driver.session.state.session
        self.ended = self.driver.session
        await self.home.log.flush()
        self.records = await self.home.log.read(session, limit=1_000_000)
        self.steps = [decode_step(record.body) for record in self.records]
        self.facts = [(step.now.mono_ns / 1e9, fact) for step in self.steps for fact in step.facts]
        await self.home.gateway.close()
        await self.fake.close()
        # picows tells the loop of a frame that is too large, and closes; the link has said so too.
        self.loop.unhandled[:] = [e for e in self.loop.unhandled if not isinstance(e, WSProtocolError)]

    def compare(self, connection: FakeConnection, expected: list[tuple[str, str]]) -> None:
        self.renewals.append((provider_history(connection.items)[: len(expected)], expected))

    # -- the model

    def answer(self, connection: FakeConnection, request: dict[str, Any]) -> FakeReply:
        items = request.get("input") or connection.items
        reply = self.reply_to(items)
        if self.reply_faults and request.get("conversation", "auto") == "auto":
            fault = self.reply_faults.pop(0)
            self.struck[fault] += 1
            reply = replace(reply, fault=fault)
        return reply

    def reply_to(self, items: Sequence[dict[str, Any]]) -> FakeReply:
        last = items[-1] if items else {}
        if last.get("type") == "function_call_output":
            return FakeReply(f"result {last['output']}", audio_ms=800)
        if last.get("role") == "assistant" and (result := untold(items)):
            return FakeReply(f"result {result}", audio_ms=800)
        said = " ".join(part.get("text") or part.get("transcript") or "" for part in last.get("content", []))
        words = said.split()
        if words[:1] == ["call"] and len(words) == 3:
            return FakeReply("", ((words[1], json.dumps({"word": words[2]})),))
        audio_ms = self.dice.choice((400, 1_200, 3_000, 6_000))
        pace_s = self.dice.choice((0.0, 0.0, 0.01, 0.03))
        return FakeReply(f"answer {said}", audio_ms=audio_ms, pace_s=pace_s)

    async def stock(self, arguments: str) -> str:
        word = json.loads(arguments)["word"]
        self.tool_runs[word] += 1
        await asyncio.sleep(self.dice.choice((0.1, 2.0, 6.0)))
        return f"stock {word}"

    async def show_screens(self) -> None:
        """The client's own tool: its result comes back as an item, and a reply is asked for when it may be."""
        done: set[str] = set()
        seen = 0
        while True:
            await asyncio.sleep(0.25)
            for _, frame in self.client.frames[seen:]:
                item = frame.get("item", {})
                if frame["type"] != "response.output_item.done" or item.get("type") != "function_call":
                    continue
                if item["call_id"] not in done and item.get("status") == "completed":
                    done.add(item["call_id"])
                    word = json.loads(item["arguments"])["word"]
                    self.tool_runs[word] += 1
                    output = Item(
                        ItemId(f"out_{item['id']}"[:32]),
                        "function_call_output",
                        "tool",
                        call_id=CallId(item["call_id"]),
                        output=f"screen {word}",
                    )
                    self.offer(i.CreateItem(output, conn=self.client.conn))
                    await self.over(20)
                    self.offer(i.CreateResponse(ResponseRequest(), conn=self.client.conn))
            seen = len(self.client.frames)

    # -- the caller

    def offer(self, input_: i.Input) -> None:
        self.driver.offer(input_)

    async def turn(self) -> None:
        number = len(self.said)
        word = f"u{number}"
        state = self.driver.session.state
        kind = self.dice.choice(("spoken", "spoken", "spoken", "typed", "typed", "screen", "stock", "pause"))
        if state.link.refused:
            kind = "typed"  # There is nobody to speak to; a client asks again, after a while.
            await asyncio.sleep(self.dice.choice((0.5, 6.0)))
        if self.said and self.said[-1].was_cut:
            kind = "spoken"
        if kind == "pause":
            await asyncio.sleep(self.dice.choice((5, 20, 40)))
            return
        if kind != "spoken":
            await self.over(SETTLE_S)
        said = Said(word, kind, self.loop.time())
        self.said.append(said)
        if kind == "spoken":
            await self.speak(word, self.dice.choice((400, 900, 2_500, 5_000)))
        else:
            self.write(word if kind == "typed" else f"call {kind} {word}")
        said.ended = self.loop.time()
        if self.dice.random() < 0.3:
            await asyncio.sleep(self.dice.uniform(0.1, 3))  # then talks on, whatever is being said
            said.was_cut = self.is_busy()
        else:
            await asyncio.sleep(0.8)
            await self.over(SETTLE_S)
            said.was_cut = self.is_busy()

    async def speak(self, text: str, ms: int) -> None:
        if self.plan.law == "pcm":
            audio, size = scripted_speech(text, ms) + scripted_silence(700), 960
        else:
            audio, size = spoken_in_tones(text, ms, self.plan.law), 160
        for at in range(0, len(audio), size):
            self.driver.append_audio(audio[at : at + size])
            await asyncio.sleep(0.02)

    def write(self, text: str) -> None:
        name = ItemId(f"item_{len(self.said)}")
        item = Item(name, "message", "user", "user", content=(Part("input_text", text),))
        self.offer(i.CreateItem(item, conn=self.client.conn))
        self.offer(i.CreateResponse(ResponseRequest(), conn=self.client.conn))

    def is_busy(self) -> bool:
        state = self.driver.session.state
        return bool(state.turn or state.active or state.held or state.untranscribed or state.preparing)

    async def over(self, patience_s: float) -> None:
        """Wait until nobody says or owes anything."""
        until = self.loop.time() + patience_s
        while self.is_busy() and self.loop.time() < until:
            await asyncio.sleep(0.1)

    # -- the faults

    async def storm(self) -> None:
        plan, dice = self.plan, self.dice
        total = sum(end - begin for begin, end in plan.storms)
        moments = sorted(dice.uniform(0, total) for _ in range(plan.faults))
        for moment in moments:
            for begin, end in plan.storms:
                if moment <= end - begin:
                    moment += begin
                    break
                moment -= end - begin
            await asyncio.sleep(max(0.0, moment - self.loop.time()))
            self.strike()
        while self.struck.total() < plan.faults:  # some found nothing to strike
            await asyncio.sleep(dice.uniform(5, 20))
            self.strike()
        await asyncio.sleep(30)
        self.calm()

    def calm(self) -> None:
        fake = self.fake
        fake.delay_s = fake.transcript_delay_s = 0.0
        fake.repeats = False
        fake.opens = []
        self.reply_faults.clear()

    def strike(self) -> None:
        """One fault, if there is something to strike: a connection that lives, or a reply (the next one that is made,
        and one fault waits for it at a time). ``struck`` counts those that were met."""
        latest = self.fake.latest
        weights = {"close": 30, "open": 15, "slow": 8, "refuse": 3, "odd": 14, "reply": 30}
        if self.reply_faults:
            del weights["reply"]
        [kind] = self.dice.choices(list(weights), list(weights.values()))
        if kind != "reply" and latest.closed is not None:
            return
        match kind:
            case "close":
                code = self.dice.choice(CLOSES)
                self.struck[f"close:{code}"] += 1
                latest.close(code)
            case "open" | "slow" | "refuse":
                how = self.dice.choice({"open": OPENS, "slow": SLOW_OPENS, "refuse": REFUSALS}[kind])
                self.struck[f"open:{how}"] += 1
                self.fake.opens = [how] * self.dice.choice((1, 1, 2)) + ["ok"]
                latest.close(1006)
            case "odd":
                self.strike_oddly(self.dice.choice(ODDITIES), latest)
            case _:
                fault = self.dice.choice([name for name in REPLY_FAULTS if name != "huge_frame"])
                if fault in ("half_then_close", "then_close"):
                    fault += f":{self.dice.choice(CLOSES)}"
                if self.dice.random() < 0.01:
                    fault = "huge_frame"
                self.reply_faults.append(fault)

    def strike_oddly(self, name: str, latest: FakeConnection) -> None:
        self.struck[name] += 1
        dice, fake = self.dice, self.fake
        match name:
            case "freeze":
                latest.freeze()
            case "expire":
                latest.expire()
            case "error":
                latest.error(dice.choice((None, "server_error", "invalid_value")))
            case "garbage":
                latest.send(
                    dice.choice(("{", "[]", "null", '{"type":7}', '{"type":"response.done"}', "\x00"))
                )
            case "binary":
                latest.send_binary(b"\x00\x01\x02")
            case "pong":
                latest.pong_delay_s = 30.0
            case "delay":
                fake.delay_s = dice.choice((0.0, 0.03, 0.2))
            case "late_words":
                fake.transcript_delay_s = dice.choice((0.0, 0.5, 3.0))
            case _:
                fake.repeats = not fake.repeats
