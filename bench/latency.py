"""What a person would notice: time to the first agent sample, to silence after barge-in, to be back after a cut.

Each scenario is one ``kind`` of load file. Times are taken at the client, on one machine, over loopback
(round trip below 0.1 ms), and hold the client's own share: a Python caller adds up to 1 ms.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from websockets.exceptions import WebSocketException

from bench.caller import Caller, Event, is_type, read_wav, user_message
from bench.gateway import Gateway
from bench.load_file import Load

AUDIO = Path(__file__).parent.parent / "src" / "openline" / "demo" / "audio"
FIRST_AUDIO = is_type("response.output_audio.delta")
DONE = is_type("response.done")
RECONNECT_S = 0.1
WINDOWS = {"embedded": "silence_ms", "barge_in": "vad_window_ms"}
"""The setting whose time is taken off: what the caller chose to wait is not what the gateway adds."""


async def measure(load: Load, *, is_quick: bool) -> dict[str, Any]:
    """Run the scenario that ``load.kind`` names, ``rounds`` times."""
    scenario = {"embedded": embedded, "barge_in": barge_in, "resume": resume, "restart": restart}[load.kind]
    rounds = 3 if is_quick else int(load.number("rounds", 30))
    with Gateway(load) as gateway:
        times_ms, lost = await scenario(load, gateway, rounds)
    window_ms = load.number(WINDOWS.get(load.kind, ""), 0)
    print(f"   {len(times_ms)} of {rounds} rounds, {lost} without a result")
    return {
        "rounds": rounds,
        "without_result": lost,
        "window_ms": window_ms,
        "ms": summary([time_ms - window_ms for time_ms in times_ms]),
        "raw_ms": summary(times_ms),
        "times_ms": [round(time_ms, 2) for time_ms in times_ms],
    }


def summary(times_ms: list[float]) -> dict[str, float]:
    """Nearest-rank percentiles; empty for no times."""
    if not times_ms:
        return {}
    ordered = sorted(times_ms)

    def rank(percent: int) -> float:
        return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)], 2)

    return {"p50": rank(50), "p90": rank(90), "p99": rank(99), "max": round(ordered[-1], 2)}


async def embedded(load: Load, gateway: Gateway, rounds: int) -> tuple[list[float], int]:
    """End of the caller's speech -> first agent sample, with the endpointing window."""
    phrase = read_wav(AUDIO / load.text("phrase", "hello.wav"))
    times_ms: list[float] = []
    async with Caller(gateway.url("openline=1")) as caller:
        await caller.send(_settings(load.number("silence_ms", 500)))
        await caller.until(is_type("session.updated"))
        await asyncio.sleep(1)
        for _ in range(rounds):
            try:
                await caller.say(phrase)
                ended = caller.speech_ended_s
                _event, at = await caller.until(FIRST_AUDIO, since_s=ended)
                times_ms.append((at - ended) * 1000)
                await caller.until(DONE, since_s=at)
            except TimeoutError:
                continue
            await _silence(caller)
    return times_ms, rounds - len(times_ms)


async def barge_in(load: Load, gateway: Gateway, rounds: int) -> tuple[list[float], int]:
    """First loud sample in -> last sample played, with the window of voice activity, at a client that clears.

    The detector judges whole frames of 32 ms, so it may be up to one frame quicker than its nominal window.
    """
    phrase = read_wav(AUDIO / load.text("phrase", "stop.wav"))
    times_ms: list[float] = []
    async with Caller(gateway.url("openline=1")) as caller:
        await caller.send(_settings(load.number("silence_ms", 500)))
        await caller.until(is_type("session.updated"))
        await asyncio.sleep(1)
        for _ in range(rounds):
            try:
                times_ms += await _interrupt(load, caller, phrase)
            except TimeoutError:
                continue
    return times_ms, rounds - len(times_ms)


async def _interrupt(load: Load, caller: Caller, phrase: Any) -> list[float]:
    asked = time.monotonic()
    await caller.ask(load.text("prompt", "Tell me about the open line."))
    _event, first = await caller.until(FIRST_AUDIO, since_s=asked)
    await asyncio.sleep(load.number("after_s", 1.0))
    if not caller.is_playing(time.monotonic()):
        raise TimeoutError("the reply was over before it could be interrupted: choose a longer prompt")
    speaking = asyncio.create_task(caller.say(phrase))
    try:
        _event, heard = await caller.until(is_type("input_audio_buffer.speech_started"), since_s=first)
        was_playing = caller.is_playing(heard)
        caller.hush()
    finally:
        await speaking
    # The words of the interruption are a turn of their own: wait for its reply and let it end.
    await caller.until(_is_whole_reply, since_s=heard)
    await _silence(caller)
    return [(heard - caller.speech_began_s) * 1000] if was_playing else []


def _is_whole_reply(event: Event) -> bool:
    return DONE(event) and event["response"]["status"] != "cancelled"


async def resume(load: Load, gateway: Gateway, rounds: int) -> tuple[list[float], int]:
    """Connecting again after a cut -> the first event that was missed."""
    times_ms: list[float] = []
    caller = await Caller(gateway.url("openline=1"), microphone=False).__aenter__()
    for number in range(rounds):
        told, sent = caller.created["openline"], time.monotonic()
        await caller.send(user_message(f"seen {number}"))
        await caller.until(is_type("conversation.item.done"), since_s=sent)
        await caller.go_deaf()
        for _ in range(3):
            await caller.send(user_message(f"missed {number}"))
        await asyncio.sleep(0.05)
        after = caller.last_event_id
        await caller.cut()
        await asyncio.sleep(load.number("away_s", 0.3))
        query = f"openline=1&session_id={told['session_id']}&token={told['token']}&after={after}"
        began = time.monotonic()
        caller = await Caller(gateway.url(query), microphone=False).__aenter__()
        try:
            _event, at = await caller.until(is_type("conversation.item.done"), since_s=began, timeout_s=5)
            times_ms.append((at - began) * 1000)
        except TimeoutError:
            continue
    await caller.__aexit__()
    return times_ms, rounds - len(times_ms)


async def restart(load: Load, gateway: Gateway, rounds: int) -> tuple[list[float], int]:
    """The process starts again after SIGKILL -> the session's first audio at a client that tries every 100 ms."""
    times_ms: list[float] = []
    for number in range(rounds):
        query = f"openline=1&session_id=restart-{number:04}-{gateway.pid}"
        caller = await Caller(gateway.url(query), microphone=False).__aenter__()
        await caller.ask(load.text("prompt", "Tell me about the open line."))
        _event, first = await caller.until(FIRST_AUDIO)
        await asyncio.sleep(0.5)
        token = caller.created["openline"]["token"]
        gateway.kill()
        await caller.cut()
        gateway.launch()
        began = gateway.started_s
        waiting = asyncio.create_task(asyncio.to_thread(gateway.wait_until_listening))
        caller = await _reconnect(gateway, f"{query}&token={token}")
        await caller.ask(load.text("prompt", "Tell me about the open line."))
        try:
            _event, at = await caller.until(FIRST_AUDIO, since_s=began)
            times_ms.append((at - began) * 1000)
        except TimeoutError:
            pass
        await waiting
        await caller.__aexit__()
    return times_ms, rounds - len(times_ms)


async def _reconnect(gateway: Gateway, query: str) -> Caller:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        began = time.monotonic()
        try:
            return await Caller(gateway.url(query), microphone=False).__aenter__()
        except (OSError, WebSocketException):
            await asyncio.sleep(max(0.0, RECONNECT_S - (time.monotonic() - began)))
    raise RuntimeError("expected the gateway to take the session back within 30 s of its restart; it did not")


async def _silence(caller: Caller) -> None:
    """Wait until the loudspeaker is quiet, and a moment more."""
    await asyncio.sleep(caller.left_to_play_s(time.monotonic()))
    caller.hush()
    await asyncio.sleep(0.5)


def _settings(silence_ms: float) -> dict[str, Any]:
    detection = {"type": "server_vad", "silence_duration_ms": int(silence_ms)}
    audio = {"input": {"turn_detection": detection}}
    return {"type": "session.update", "session": {"type": "realtime", "audio": audio}}
