"""LiveKit Agents, ``openai.realtime.RealtimeModel``: its session without a room, as an AgentSession uses it.

Everything that it logs at warning or above fails the scenario: it skips what it cannot handle and only says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import driver
from driver import Call, News, check
from livekit import rtc
from livekit.agents import llm
from livekit.plugins import openai
from openai.types.beta.realtime.session import TurnDetection


@llm.function_tool
async def stock(part: str) -> str:
    """The stock of a part."""
    return driver.TOOLS["stock"]


@llm.function_tool
async def price(part: str) -> str:
    """The price of a part."""
    return driver.TOOLS["price"]


TOOLS = {"stock": stock, "price": price}


class Complaints(logging.Handler):
    """What the client complains of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "lk.pii.event", None)
        known = f" ({event['type']})" if isinstance(event, dict) else ""
        cause = f": {record.exc_info[1]!r}" if record.exc_info else ""
        self.lines.append(f"{record.getMessage()}{known}{cause}")


@dataclass
class Reply:
    """One generation, read to its end."""

    text: str = ""
    audio_ms: float = 0.0
    message_id: str = ""
    calls: list[Any] = field(default_factory=list)


class Line:
    def __init__(self, session: Any) -> None:
        self.session = session
        self.news = News()
        for name in (
            "input_speech_started",
            "input_speech_stopped",
            "input_audio_transcription_completed",
            "generation_created",
            "error",
        ):
            session.on(name, self.news.put)
        session.on("openai_server_event_received", self._raw)
        self.raw: list[Any] = []
        self.first_sound = 0.0

    def _raw(self, event: dict[str, Any]) -> None:
        if event["type"] == "response.output_audio.delta" and not self.first_sound:
            self.first_sound = time.monotonic()
        self.raw.append(event)

    async def wait(self, kind: type, test: Any = lambda event: True) -> Any:
        def fits(event: Any) -> bool:
            if isinstance(event, llm.RealtimeModelError) and kind is not llm.RealtimeModelError:
                raise driver.Failed(f"an error while waiting for {kind.__name__}: {event.error!r}")
            return isinstance(event, kind) and test(event)

        return await self.news.wait(fits, kind.__name__)

    async def write(self, text: str) -> None:
        context = self.session.chat_ctx.copy()
        context.add_message(role="user", content=text)
        await self.session.update_chat_ctx(context)

    async def generate(self) -> Reply:
        return await read(await self.session.generate_reply())

    async def turn(self, text: str) -> Reply:
        await self.write(text)
        return await self.generate()

    async def speak(self, call: Call, name: str, after_ms: int = 1_000) -> None:
        async for pcm in driver.frames(call.sound(name), after_ms=after_ms):
            self.session.push_audio(rtc.AudioFrame(pcm, 24_000, 1, len(pcm) // 2))

    async def answer_tools(self, calls: list[Any]) -> Reply:
        context = self.session.chat_ctx.copy()
        for one in calls:
            given = json.loads(one.arguments)
            check(given == {"part": "bolt"}, f"{one.name} was called with {given}")
            output = await TOOLS[one.name](**given)
            context.items.append(
                llm.FunctionCallOutput(call_id=one.call_id, name=one.name, output=output, is_error=False)
            )
        await self.session.update_chat_ctx(context)
        return await self.generate()


async def read(created: Any, reply: Reply | None = None) -> Reply:
    """A generation to its end, into ``reply``."""
    reply = reply or Reply()

    async def message(one: Any) -> None:
        reply.message_id = one.message_id

        async def words() -> None:
            async for text in one.text_stream:
                reply.text += text

        async def sound() -> None:
            async for frame in one.audio_stream:
                reply.audio_ms += frame.duration * 1_000

        await asyncio.gather(words(), sound())

    async with asyncio.timeout(driver.PATIENCE_S):
        async for one in created.message_stream:
            await message(one)
        async for wish in created.function_stream:
            reply.calls.append(wish)
    return reply


@contextlib.asynccontextmanager
async def line(
    call: Call, *, tools: bool = False, allowed: tuple[str, ...] = (), **options: Any
) -> AsyncIterator[Line]:
    """``allowed``: complaints that this scenario is about."""
    complaints = Complaints()
    logging.getLogger("livekit.agents").addHandler(complaints)
    model = openai.realtime.RealtimeModel(
        base_url=f"{call.url}/v1", api_key=driver.KEY, model=call.model, **options
    )
    session = model.session()
    one = Line(session)
    await session.update_instructions("Be brief.")
    if tools:
        await session.update_tools(list(TOOLS.values()))
    yield one
    created = next(event for event in one.raw if event["type"] == "session.created")
    call.seen["session"] = created["session"]["id"]
    await driver.ends_quietly(session.aclose(), "the session")
    await model.aclose()
    bad = [text for text in complaints.lines if not text.startswith(allowed)] if allowed else complaints.lines
    check(not bad, f"the client complained: {bad[:3]}")


def text_only() -> dict[str, Any]:
    return {"modalities": ["text"]}


async def connect(call: Call) -> None:
    async with line(call) as one:
        async with asyncio.timeout(driver.PATIENCE_S):
            while sum(event["type"] == "session.updated" for event in one.raw) < 2:
                await asyncio.sleep(0.01)
        last = [event for event in one.raw if event["type"] == "session.updated"][-1]
        check(last["session"]["instructions"] == "Be brief.", "the settings were not taken")


async def text_turn(call: Call) -> None:
    async with line(call, **text_only()) as one:
        await one.turn(driver.WORD)
        said = await one.turn(driver.ASK)
        check(driver.ANSWER in said.text.lower(), f"the code word was not remembered: {said.text}")
        roles = [item.role for item in one.session.chat_ctx.items]
        check(roles == ["user", "assistant"] * 2, f"the client's own history is {roles}")


async def audio_turn(call: Call) -> None:
    turn_detection = TurnDetection(type="server_vad", create_response=True, interrupt_response=True)
    async with line(call, turn_detection=turn_detection) as one:
        await one.speak(call, "times")
        await one.wait(llm.InputSpeechStartedEvent)
        await one.wait(llm.InputSpeechStoppedEvent)
        reply = Reply()
        while not reply.text:
            await read(await one.wait(llm.GenerationCreatedEvent), reply)
        words = reply.text.lower()
        check("84" in words or "eighty" in words, f"the answer was not spoken: {words}")
        check(reply.audio_ms > 500, f"only {reply.audio_ms:.0f} ms of sound came")
        heard = [
            event.transcript.lower()
            for event in one.news.all
            if isinstance(event, llm.InputTranscriptionCompleted) and event.is_final
        ]
        check(heard and "twelve times seven" in heard[0], f"the caller was heard as {heard}")
        call.seen["heard"] = heard


async def barge_in(call: Call) -> None:
    """What AgentSession does at input_speech_started: interrupt, and truncate to what was played."""
    async with line(call) as one:
        await one.speak(call, "about", after_ms=900)
        reply = Reply()
        reading = asyncio.create_task(read(await one.wait(llm.GenerationCreatedEvent), reply))
        async with asyncio.timeout(driver.PATIENCE_S):
            while not reply.audio_ms:
                await asyncio.sleep(0.01)
        playing = driver.Playing(one.first_sound)
        await asyncio.sleep(1.0)
        speaking = asyncio.create_task(one.speak(call, "stop"))
        await one.wait(llm.InputSpeechStartedEvent)
        played = playing.interrupt(call, reply.audio_ms)
        one.session.interrupt()
        one.session.truncate(message_id=reply.message_id, modalities=["audio", "text"], audio_end_ms=played)
        await reading
        whole = one.raw
        cut = next(event["response"] for event in whole if event["type"] == "response.done")
        check(cut["status"] == "cancelled", f"the answer was not cut: {cut['status']}")
        next_reply = await read(await one.wait(llm.GenerationCreatedEvent))
        check(next_reply.audio_ms > 0, "no answer followed")
        await speaking
        check(any(event["type"] == "conversation.item.truncated" for event in whole), "nothing was truncated")


async def tool_call(call: Call) -> None:
    async with line(call, tools=True, **text_only()) as one:
        wish = await one.turn(driver.CALL_ONE)
        check([wanted.name for wanted in wish.calls] == ["stock"], f"called: {wish.calls}")
        said = await one.answer_tools(wish.calls)
        check("17" in said.text, f"the result is not in the answer: {said.text}")


async def parallel_tool_calls(call: Call) -> None:
    async with line(call, tools=True, **text_only()) as one:
        wish = await one.turn(driver.CALL_BOTH)
        check([wanted.name for wanted in wish.calls] == ["stock", "price"], f"called: {wish.calls}")
        said = await one.answer_tools(wish.calls)
        check(said.text, "no answer after both results")


async def manual_commit(call: Call) -> None:
    async with line(call, turn_detection=None, **text_only()) as one:
        await one.speak(call, "fact-tiger-seven")
        one.session.commit_audio()
        await one.generate()
        said = await one.turn(driver.ASK)
        check(driver.ANSWER in said.text.lower(), f"what was said is not known: {said.text}")
        check(
            not any(isinstance(event, llm.InputSpeechStartedEvent) for event in one.news.all),
            "turns were detected",
        )


async def error_path(call: Call) -> None:
    """It places an item after one that the server does not know, and is refused in its own terms."""
    async with line(
        call, allowed=("OpenAI Realtime API rejected part", "OpenAI Realtime API returned"), **text_only()
    ) as one:
        one.session.send_event(
            {
                "type": "session.update",
                "event_id": "mine",
                "session": {"type": "realtime", "output_modalities": ["smell"]},
            }
        )
        problem = await one.wait(llm.RealtimeModelError)
        check(problem.recoverable, "the error is said to be final")
        call.seen["code"] = problem.error.body.code
        reply = await one.turn("Hello there.")
        check(reply.text, "no turn after the error")


async def clean_close(call: Call) -> None:
    async with line(call, **text_only()) as one:
        await one.turn("Hello there.")


if __name__ == "__main__":
    driver.main(
        "livekit-plugins-openai",
        {
            "connect": connect,
            "text_turn": text_turn,
            "audio_turn": audio_turn,
            "barge_in": barge_in,
            "tool_call": tool_call,
            "parallel_tool_calls": parallel_tool_calls,
            "manual_commit": manual_commit,
            "error_path": error_path,
            "clean_close": clean_close,
        },
    )
