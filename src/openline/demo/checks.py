"""What the demo claims, checked: from the log, from the frames the caller saw, and from the recording."""

from __future__ import annotations

import io
import wave
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openline import bootstrap
from openline.cli.chain import gaps
from openline.cli.facts import seq_of
from openline.cli.replay import replay
from openline.cli.source import DataSource, HttpSource
from openline.demo.story import Story
from openline.errors import OpenlineError
from openline.ports import WIRE_RATE
from openline.types import SessionId

Json = dict[str, Any]
EXPECTED = (
    "openline.session.started",
    "openline.connection.attached",
    "input_audio_buffer.speech_started",
    "openline.turn.committed",
    "response.created",
    "openline.item.heard",
    "response.done",
    "openline.tool.requested",
    "openline.tool.started",
    "openline.tool.settled",
    "openline.connection.detached",
    "openline.session.owned",
    "openline.session.ended",
)
LEAD_MS = 300
"""Silence that a recognizer likes to have in front of speech."""


@dataclass(frozen=True, slots=True)
class Verdict:
    is_good: bool
    says: str


def check_log(events: Sequence[Json], story: Story) -> list[Verdict]:
    """The record itself: whole, with all that happened, and with each thing ended exactly once."""
    missing = gaps(events)
    kinds = [event["type"] for event in events]
    lacking = [kind for kind in EXPECTED if kind not in kinds]
    epochs = [event["data"]["epoch"] for event in events if event["type"] == "openline.session.owned"]
    turns = [event for event in events if event["type"] == "openline.turn.committed"]
    found = [
        Verdict(not missing, f"{len(events)} facts in the log, no gap in their numbers"),
        Verdict(
            not lacking, "all kinds of facts are there" if not lacking else f"missing: {', '.join(lacking)}"
        ),
        Verdict(epochs == [1, 2], f"two owners, one after the other: epochs {epochs}"),
        Verdict(len(turns) == 7, f"{len(turns)} turns committed, as many as were spoken"),
    ]
    made = {event["data"]["response_id"] for event in events if event["type"] == "response.created"}
    done = [event["data"]["response_id"] for event in events if event["type"] == "response.done"]
    once = sorted(done) == sorted(made)
    found.append(Verdict(once, f"{len(made)} responses, each with exactly one end"))
    return found


def check_frames(events: Sequence[Json], story: Story) -> Verdict:
    """Nothing lost and nothing twice, over the cut and the kill: the caller's frames against the log."""
    shown = story.caller.shown
    places = [(epoch, seq, n) for epoch, seq, n, _ in shown]
    doubled = len(places) - len(set(places))
    seen = {seq for _, seq, _, _ in shown}
    facts_seen = {event["type"] for event in events if seq_of(event) in seen}
    first = min(seen, default=0)
    lost = [
        seq_of(e) for e in events if e["type"] in facts_seen and first <= seq_of(e) and seq_of(e) not in seen
    ]
    is_ordered = [seq for _, seq, _ in places] == sorted(seq for _, seq, _ in places)
    good = not doubled and not lost and is_ordered
    says = f"{len(shown)} frames of facts reached the caller: nothing lost, nothing twice, in order"
    if not good:
        says = f"the caller's frames: {doubled} twice, facts {lost or 'none'} lost, in order: {is_ordered}"
    return Verdict(good, says)


def check_replay(story: Story) -> Verdict:
    reader = bootstrap.read_data(story.gateway.data)
    session = SessionId(story.session)
    result = replay(session, list(bootstrap.stored_steps(reader, session)), verify=True)
    reader.close()
    if result.problem:
        return Verdict(False, f"replay --verify: {result.problem}")
    return Verdict(True, f"replay --verify: {result.steps} steps run again, the same facts and effects")


async def check_answer(wav: bytes, story: Story) -> Verdict:
    """Listen to the recording as somebody who was not told the fact."""
    wheels = bootstrap.speech_wheels()
    if not (wheels["pocketsphinx"] and wheels["espeakng_loader"]):
        knows = story.fact.value in story.answer.lower()
        says = f"the agent was asked and said “{story.answer}” (by its text: speech is not installed)"
        return Verdict(knows, says)
    pcm = agent_audio(wav, *story.answer_range_ms)
    try:
        heard = (await bootstrap.recognize_with_grammar(pcm, story.book.answer_grammar)).text
    except OpenlineError as error:
        return Verdict(False, f"the agent's answer could not be recognised: {error}")
    fact = story.book.fact_of_answer(heard)
    says = f"the recording, heard with all {len(story.book.facts)} facts as a grammar, says “{heard}”"
    return Verdict(fact == story.fact, says)


def agent_audio(wav: bytes, start_ms: int, end_ms: int) -> bytes:
    """The agent's channel (the right one) of a stereo recording, PCM16 mono 24 kHz, with silence in front."""
    with wave.open(io.BytesIO(wav)) as recording:
        recording.setpos(min(recording.getnframes(), start_ms * WIRE_RATE // 1000))
        both = array("h")
        both.frombytes(recording.readframes((end_ms - start_ms) * WIRE_RATE // 1000))
        channels = recording.getnchannels()
    return bytes(LEAD_MS * WIRE_RATE // 1000 * 2) + both[channels - 1 :: channels].tobytes()


def facts_of(source: HttpSource | DataSource, session: str) -> list[Json]:
    return list(source.facts(session))


def keep_recording(wav: bytes, folder: Path) -> Path:
    path = folder / "call.wav"
    path.write_bytes(wav)
    return path
