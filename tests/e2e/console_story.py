"""What the fake gateway says and what its finished sessions hold: words, a made voice, facts, recordings."""

from __future__ import annotations

import json
import math
import struct
from array import array
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One turn: what the recogniser hears with which confidence, what the agent answers, maybe with a tool."""

    caller: str
    confidence: float
    agent: str
    tool: str = ""
    arguments: str = "{}"
    output: str = ""


LINES = (
    Line(
        "how many brass hinges do we have left",
        0.93,
        "There are forty two brass hinges on the shelf by the window, and another box of one hundred arrives on"
        " Thursday morning. Shall I put some of those aside for the door you are building?",
        "stock",
        '{"part":"brass hinge"}',
        "42",
    ),
    Line("weight make that eight tea", 0.41, "I am not sure I heard that well. Did you say eighty?"),
    Line(
        "yes order eighty please",
        0.88,
        "Eighty brass hinges are ordered from Halvorsen. They leave the warehouse tomorrow.",
        "order_parts",
        '{"part":"brass hinge","count":80}',
        '{"order":"HV-20417","arrives":"Thursday"}',
    ),
    Line("thank you", 0.97, "You are welcome. I will keep the line open."),
)


@lru_cache(maxsize=8)
def _table(who: str, rate: int) -> array[int]:
    """Four seconds of something with the shape of speech: harmonics under syllables, with pauses between words."""
    pitch, syllables, level = (118.0, 4.1, 0.42) if who == "agent" else (164.0, 4.7, 0.5)
    samples = array("h")
    for index in range(4 * rate):
        t = index / rate
        phase = 2 * math.pi * pitch * (t + 0.004 * math.sin(9 * t))
        syllable = abs(math.sin(math.pi * syllables * t)) ** 0.8 * (
            0.55 + 0.45 * math.sin(1.9 * t + len(who))
        )
        word = 0.06 if math.sin(2.4 * t + 1) < -0.97 else 1.0
        tone = (
            math.sin(phase)
            + 0.6 * math.sin(3 * phase)
            + 0.4 * math.sin(5 * phase + t)
            + 0.25 * math.sin(11 * phase)
        )
        samples.append(int(32767 * level * tone / 2.3 * syllable * word))
    return samples


def voice(who: str, length_ms: int, *, seed: int = 0, rate: int = 24_000) -> bytes:
    """PCM16 mono of ``length_ms``; 8 ms of fade at both ends."""
    table = _table(who, rate)
    count = length_ms * rate // 1000
    start = (seed * 7919) % len(table)
    doubled = (table[start:] + table[:start]) * (count // len(table) + 1)
    samples = doubled[:count]
    fade = rate // 125
    for index in range(min(fade, count)):
        samples[index] = samples[index] * index // fade
        samples[-1 - index] = samples[-1 - index] * index // fade
    return samples.tobytes()


def wav(voices: list[tuple[list[tuple[int, int]], str]], length_ms: int, *, rate: int = 24_000) -> bytes:
    """A PCM16 WAV with one channel a voice; each voice speaks in its (from, to) milliseconds."""
    count = length_ms * rate // 1000
    mixed = array("h", bytes(2 * count * len(voices)))
    for channel, (spoken, who) in enumerate(voices):
        track = array("h", bytes(2 * count))
        for begin, end in spoken:
            piece = array("h", voice(who, end - begin, seed=begin, rate=rate))
            first = begin * rate // 1000
            track[first : first + len(piece)] = piece
        mixed[channel :: len(voices)] = track[:count]
    body = mixed.tobytes()
    width = 2 * len(voices)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(body), b"WAVE", b"fmt ", 16, 1, len(voices), rate,
                       rate * width, width, 16, b"data", len(body))  # fmt: skip
    return head + body


@dataclass(slots=True)
class Seed:
    """A session that is over: built fact by fact, with times in milliseconds since its start."""

    id: str
    start_ms: int
    status: str = "parked"
    epoch: int = 1
    facts: list[Json] = field(default_factory=list)
    recording: bytes = b""
    caller: list[tuple[int, int]] = field(default_factory=list)
    agent: list[tuple[int, int]] = field(default_factory=list)

    def fact(self, at: int, kind: str, **data: object) -> None:
        self.facts.append({"seq": len(self.facts) + 1, "type": kind, "at": self.start_ms + at, "data": data})

    def turn(self, number: int, start: int, end: int, text: str, confidence: float) -> None:
        item, turn = f"item_u{number}", f"turn_{number}"
        self.caller.append((start, end))
        place = {"turn_id": turn, "item_id": item}
        self.fact(
            start + 90, "input_audio_buffer.speech_started", start=start * 24, audio_start_ms=start, **place
        )
        self.fact(end + 500, "input_audio_buffer.speech_stopped", end=end * 24, audio_end_ms=end, **place)
        audio = {"start": start * 24, "end": end * 24, "rate": 24_000}
        content = [{"type": "input_audio", "text": text, "audio": audio}]
        said = {"id": item, "type": "message", "role": "user", "status": "completed", "content": content}
        committed = {"turn_id": turn, "text": text, "confidence": confidence, "item": said, "text_items": []}
        self.fact(end + 512, "openline.turn.committed", **committed)

    def tool(self, call: str, start: int, end: int, name: str, arguments: str, output: str) -> None:
        item = {
            "id": f"item_{call}",
            "type": "mcp_call",
            "name": name,
            "arguments": arguments,
            "call_id": call,
        }
        self.fact(start - 2, "response.output_item.done", item=item)
        about = {"call_id": call, "item_id": item["id"], "name": name, "runner": "gateway"}
        self.fact(start, "openline.tool.requested", **about)
        self.fact(start + 4, "openline.tool.started", call_id=call, attempt=1, epoch=1)
        settled = {"call_id": call, "attempt": 1, "outcome": "succeeded", "item": {**item, "output": output}}
        self.fact(end, "openline.tool.settled", **settled)

    def reply(
        self, number: int, created: int, start: int, end: int, text: str, *, heard: int | None = None
    ) -> None:
        """``heard`` characters were heard before the caller cut in at ``end``; None means all."""
        item, response = f"item_a{number}", f"resp_{number}"
        is_cut = heard is not None
        self.agent.append((start, end))
        if not any(
            fact["type"] == "response.created" and fact["data"]["response_id"] == response
            for fact in self.facts
        ):
            self.fact(created, "response.created", response_id=response)
        content = [{"type": "output_audio", "text": text}]
        said = {"id": item, "type": "message", "role": "assistant", "content": content}
        said["status"] = "incomplete" if is_cut else "completed"
        audio_ms = (end - start) * 2 if is_cut else end - start
        self.fact(end + 6, "response.output_item.done", response_id=response, item=said, audio_ms=audio_ms)
        over = ("cancelled", "turn_detected") if is_cut else ("completed", "")
        self.fact(end + 8, "response.done", response_id=response, status=over[0], reason=over[1])
        text_end = len(text) if heard is None else heard
        known = {"audio_end_ms": end - start, "text_end": text_end, "source": "reported", "estimated": False}
        self.fact(end + 60, "openline.item.heard", item_id=item, **known)

    def finish(self, length_ms: int) -> Seed:
        self.facts.sort(key=lambda fact: (fact["at"], fact["seq"]))
        for number, fact in enumerate(self.facts, start=1):
            fact["seq"] = number
        self.recording = wav([(self.caller, "caller"), (self.agent, "agent")], length_ms)
        return self


def seeded_sessions(now_ms: int) -> list[Seed]:
    """Finished sessions of several kinds, the first with everything in it."""
    return [
        _workshop(now_ms - 11 * 60_000),
        _restarted(now_ms - 3 * 3_600_000),
        _short(now_ms - 26 * 3_600_000),
    ]


def _workshop(start: int) -> Seed:
    seed = Seed("workshop_hinges_0417", start)
    seed.fact(0, "openline.session.owned", epoch=1, node="node-a")
    seed.fact(1, "openline.session.started", model="embedded")
    seed.fact(3, "openline.connection.attached", role="speaker", conn="conn_1")
    seed.fact(41, "openline.link.opened", model="pipeline")
    seed.turn(1, 900, 3100, LINES[0].caller, 0.93)
    seed.fact(3640, "response.created", response_id="resp_1")
    seed.tool("call_1", 3660, 4010, "stock", LINES[0].arguments, "42")
    seed.reply(1, 3640, 4300, 9900, LINES[0].agent)
    seed.turn(2, 10_900, 12_700, "order sixty more please", 0.88)
    long = (
        "I will order sixty more brass hinges from Halvorsen. They usually deliver within three days, and the price"
        " per hinge has not changed since the spring."
    )
    seed.reply(2, 13_250, 13_500, 17_380, long, heard=73)
    seed.turn(3, 17_100, 18_500, "wait make that eighty", 0.79)
    seed.fact(19_040, "response.created", response_id="resp_3")
    seed.tool("call_2", 19_060, 20_150, "order_parts", '{"part":"brass hinge","count":80}', LINES[2].output)
    seed.fact(22_300, "openline.connection.detached", role="speaker", conn="conn_1", reason="lost", code=1006)
    seed.fact(24_650, "openline.connection.attached", role="speaker", conn="conn_2")
    seed.reply(3, 19_040, 20_400, 27_100, "Eighty brass hinges are ordered from Halvorsen. They leave the warehouse"
               " tomorrow and should be here on Thursday.")  # fmt: skip
    seed.agent[-1:] = [(20_400, 22_300), (24_700, 27_100)]
    seed.turn(4, 28_200, 28_900, "think hue", 0.38)
    seed.reply(4, 29_440, 29_700, 32_200, "I did not catch that well. Was that a thank you?")
    seed.turn(5, 33_100, 33_700, "yes thank you", 0.95)
    seed.reply(5, 34_240, 34_450, 36_400, "You are welcome. I will keep the line open.")
    seed.fact(
        38_000, "openline.connection.detached", role="speaker", conn="conn_2", reason="closed", code=1000
    )
    seed.fact(38_010, "openline.session.parked", reason="client_left", until_ms=start + 604_800_000)
    return seed.finish(38_000)


def _restarted(start: int) -> Seed:
    seed = Seed("call_k7m2q9xe", start, status="ended", epoch=2)
    seed.fact(0, "openline.session.owned", epoch=1, node="node-a")
    seed.fact(2, "openline.session.started", model="embedded")
    seed.fact(4, "openline.connection.attached", role="speaker", conn="conn_1")
    seed.turn(1, 700, 2400, "remember that the blue drawer holds seventeen", 0.9)
    seed.reply(1, 2950, 3200, 5200, "I will remember: the blue drawer holds seventeen.")
    seed.fact(8400, "openline.session.owned", epoch=2, node="node-a")
    seed.fact(8460, "openline.connection.attached", role="speaker", conn="conn_2")
    seed.turn(2, 9800, 11_300, "what does the blue drawer hold", 0.92)
    seed.reply(2, 11_850, 12_050, 13_700, "The blue drawer holds seventeen.")
    seed.fact(15_000, "openline.session.ended", reason="hung up")
    return seed.finish(15_000)


def _short(start: int) -> Seed:
    seed = Seed("call_d4hs8wnr", start, status="ended")
    seed.fact(0, "openline.session.started", model="embedded")
    item = {
        "id": "item_u1",
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "hello"}],
    }
    seed.fact(900, "conversation.item.created", item=item)
    reply = {"id": "item_a1", "type": "message", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "Hello. What can I do for you?"}]}  # fmt: skip
    seed.fact(1100, "response.output_item.done", response_id="resp_1", item=reply)
    seed.fact(1400, "example.unheard_of", anything=json.loads('{"nested": [1, 2]}'))
    seed.fact(4000, "openline.session.ended", reason="hung up")
    seed = seed.finish(4000)
    seed.recording = b""
    return seed
