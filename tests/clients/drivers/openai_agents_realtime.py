"""openai-agents, ``RealtimeRunner``: an agent with tools, its session, its events and the history it keeps.

It drops a frame that does not fit its types and only reports an error: any error event fails the scenario.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import driver
from agents import function_tool, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner
from agents.realtime.model_inputs import RealtimeModelSendRawMessage
from driver import Call, News, check

set_tracing_disabled(True)
called: list[tuple[str, str]] = []


@function_tool
async def stock(part: str) -> str:
    """The stock of a part."""
    called.append(("stock", part))
    return driver.TOOLS["stock"]


@function_tool
async def price(part: str) -> str:
    """The price of a part."""
    called.append(("price", part))
    return driver.TOOLS["price"]


class Line:
    def __init__(self, session: Any, allows_errors: bool) -> None:
        self.session = session
        self.allows_errors = allows_errors
        self.news = News()
        self.raw: list[dict[str, Any]] = []
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.session:
            if event.type == "raw_model_event" and event.data.type == "raw_server_event":
                self.raw.append(event.data.data)
            self.news.put(event)

    async def wait(self, type_: str, test: Any = lambda event: True) -> Any:
        """An event of the session, or of the model under it by ``raw:NAME`` (``raw:turn_ended``)."""

        def fits(event: Any) -> bool:
            if event.type == "error" and not self.allows_errors:
                raise driver.Failed(f"an error while waiting for {type_}: {event.error}")
            name = f"raw:{event.data.type}" if event.type == "raw_model_event" else event.type
            return name == type_ and test(event)

        return await self.news.wait(fits, type_)

    async def said(self, test: Any = bool) -> str:
        """The text of the next answer that passes, as the client's own history has it."""

        def ended(event: Any) -> bool:
            return bool(test(self.last_answer()))

        await self.wait("raw:turn_ended", ended)
        return self.last_answer()

    def last_answer(self) -> str:
        items = [item for item in self.session._history if item.type == "message"]
        if not items or items[-1].role != "assistant":
            return ""
        return " ".join(
            (part.text if part.type == "text" else part.transcript) or "" for part in items[-1].content
        )

    def audio_ms(self) -> float:
        return sum(len(event.audio.data) for event in self.news.all if event.type == "audio") / 48

    async def turn(self, text: str) -> str:
        await self.session.send_message(text)
        return await self.said()

    async def speak(self, call: Call, name: str, *, after_ms: int = 1_000, commit: bool = False) -> None:
        async for pcm in driver.frames(call.sound(name), after_ms=after_ms):
            await self.session.send_audio(pcm)
        if commit:
            await self.session.send_audio(bytes(960), commit=True)

    async def send(self, type_: str, **values: Any) -> None:
        message: Any = {"type": type_, "other_data": values}
        await self.session.model.send_event(RealtimeModelSendRawMessage(message=message))


@contextlib.asynccontextmanager
async def line(
    call: Call, *, tools: bool = False, allows_errors: bool = False, **settings: Any
) -> AsyncIterator[Line]:
    agent = RealtimeAgent(name="stock", instructions="Be brief.", tools=[stock, price] if tools else [])
    runner = RealtimeRunner(agent)
    config: Any = {
        "url": f"{call.realtime}?model={call.model}",
        "api_key": driver.KEY,
        "initial_model_settings": settings,
    }
    session = await runner.run(model_config=config)
    async with session:
        one = Line(session, allows_errors)
        yield one
        errors = [event.error for event in one.news.all if event.type == "error"]
        check(allows_errors or not errors, f"the client reports errors: {errors[:2]}")
        created = next(event for event in one.raw if event["type"] == "session.created")
        call.seen["session"] = created["session"]["id"]
        await driver.ends_quietly(session.close(), "the session")
    await driver.ends_quietly(one.reader, "the reading of events")


TEXT: dict[str, Any] = {"output_modalities": ["text"]}


async def connect(call: Call) -> None:
    async with line(call) as one:
        async with asyncio.timeout(driver.PATIENCE_S):
            while sum(event["type"] == "session.updated" for event in one.raw) < 2:
                await asyncio.sleep(0.01)
        last = [event for event in one.raw if event["type"] == "session.updated"][-1]["session"]
        check(last["instructions"] == "Be brief.", "the settings were not taken")


async def text_turn(call: Call) -> None:
    async with line(call, **TEXT) as one:
        await one.turn(driver.WORD)
        said = await one.turn(driver.ASK)
        check(driver.ANSWER in said.lower(), f"the code word was not remembered: {said}")
        roles = [item.role for item in one.session._history if item.type == "message"]
        check(roles == ["user", "assistant"] * 2, f"the client's own history is {roles}")


async def audio_turn(call: Call) -> None:
    async with line(call, turn_detection={"type": "server_vad", "interrupt_response": True}) as one:
        await one.speak(call, "times")
        said = await one.said(lambda text: "84" in text or "eighty" in text.lower())
        call.seen["said"] = said
        check(one.audio_ms() > 500, f"only {one.audio_ms():.0f} ms of sound came")
        heard = [
            part.transcript
            for item in one.session._history
            if item.type == "message" and item.role == "user"
            for part in item.content
        ]
        check(heard and "twelve times seven" in str(heard[0]).lower(), f"the caller was heard as {heard}")
        call.seen["heard"] = heard


async def barge_in(call: Call) -> None:
    """It reports an interruption and truncates by itself to what it thinks was played."""
    async with line(call) as one:
        await one.speak(call, "about", after_ms=900)
        await one.wait("audio")
        playing = driver.Playing(one.news.came)
        await asyncio.sleep(1.0)
        speaking = asyncio.create_task(one.speak(call, "stop"))
        await one.wait("audio_interrupted")
        playing.interrupt(call, one.audio_ms())
        await one.wait("raw:turn_ended")
        cut = next(event["response"] for event in one.raw if event["type"] == "response.done")
        check(cut["status"] == "cancelled", f"the answer was not cut: {cut['status']}")
        await one.wait("raw:turn_ended")
        check(one.last_answer(), "no answer followed")
        await speaking
        check(
            any(event["type"] == "conversation.item.truncated" for event in one.raw), "nothing was truncated"
        )


async def tool_call(call: Call) -> None:
    async with line(call, tools=True, **TEXT) as one:
        await one.session.send_message(driver.CALL_ONE)
        await one.wait("tool_end")
        check(called == [("stock", "bolt")], f"called: {called}")
        said = await one.said()
        check("17" in said, f"the result is not in the answer: {said}")


async def parallel_tool_calls(call: Call) -> None:
    async with line(call, tools=True, **TEXT) as one:
        await one.session.send_message(driver.CALL_BOTH)
        await one.wait("tool_end")
        await one.wait("tool_end")
        check(sorted(called) == [("price", "bolt"), ("stock", "bolt")], f"called: {called}")
        first = next(event["response"] for event in one.raw if event["type"] == "response.done")
        check(len(first["output"]) == 2, "expected both calls in one response")
        await one.said()


async def manual_commit(call: Call) -> None:
    async with line(call, turn_detection=None, **TEXT) as one:
        await one.speak(call, "fact-tiger-seven", commit=True)
        await one.send("response.create")
        await one.wait("raw:turn_ended")
        said = await one.turn(driver.ASK)
        check(driver.ANSWER in said.lower(), f"what was said is not known: {said}")
        check(not any(event["type"].endswith("speech_started") for event in one.raw), "turns were detected")


async def error_path(call: Call) -> None:
    async with line(call, allows_errors=True, **TEXT) as one:
        await one.send("conversation.item.delete", item_id="item_nowhere")
        problem = (await one.wait("error")).error
        code = getattr(problem, "code", None)
        check(code is not None, f"the error has no code: {problem}")
        call.seen["code"] = code
        check(await one.turn("Hello there."), "no turn after the error")
        count = sum(event.type == "error" for event in one.news.all)
        check(count == 1, f"expected one error, got {count}")


async def clean_close(call: Call) -> None:
    async with line(call, **TEXT) as one:
        await one.turn("Hello there.")


if __name__ == "__main__":
    driver.main(
        "openai-agents",
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
