"""openai-python, ``client.realtime.connect``: its connection, its typed events, nothing else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import driver
from driver import Call, News, check
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

SERVER_EVENT = TypeAdapter(RealtimeServerEvent)
TOOLS = [
    {
        "type": "function",
        "name": name,
        "description": f"The {name} of a part.",
        "parameters": {
            "type": "object",
            "properties": {"part": {"type": "string"}},
            "required": ["part"],
        },
    }
    for name in driver.TOOLS
]


class Line:
    """One connection, and what it yields."""

    def __init__(self, connection: Any, call: Call) -> None:
        self.connection = connection
        self.call = call
        self.news = News()
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.connection:
            # The client is lenient; its declared types are not, and other programs rely on them.
            SERVER_EVENT.validate_json(event.model_dump_json(exclude_unset=True))
            self.news.put(event)

    async def wait(self, type_: str, test: Any = lambda event: True) -> Any:
        def fits(event: Any) -> bool:
            if event.type == "error" and type_ != "error":
                raise driver.Failed(f"an error while waiting for {type_}: {event.error.code}")
            return bool(event.type == type_ and test(event))

        return await self.news.wait(fits, type_)

    def of(self, type_: str) -> list[Any]:
        return [event for event in self.news.all if event.type == type_]

    async def configure(self, **session: Any) -> Any:
        await self.connection.session.update(session={"type": "realtime", **session})
        return (await self.wait("session.updated")).session

    async def ask(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        await self.connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": content}
        )
        await self.connection.response.create()

    async def turn(self, text: str) -> Any:
        await self.ask(text)
        return (await self.wait("response.done")).response

    async def speak(self, name: str) -> None:
        async for frame in driver.frames(self.call.sound(name)):
            await self.connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())

    async def answer_tools(self, response: Any) -> Any:
        for item in response.output:
            given = json.loads(item.arguments)
            check(given == {"part": "bolt"}, f"{item.name} was called with {given}")
            output = {
                "type": "function_call_output",
                "call_id": item.call_id,
                "output": driver.TOOLS[item.name],
            }
            await self.connection.conversation.item.create(item=output)
        await self.connection.response.create()
        return (await self.wait("response.done")).response

    def audio_ms(self) -> float:
        return (
            sum(len(base64.b64decode(event.delta)) for event in self.of("response.output_audio.delta")) / 48
        )


@contextlib.asynccontextmanager
async def line(call: Call, **session: Any) -> AsyncIterator[Line]:
    client = AsyncOpenAI(base_url=f"{call.url}/v1", api_key=driver.KEY, max_retries=0)
    async with client.realtime.connect(model=call.model) as connection:
        one = Line(connection, call)
        created = await one.wait("session.created")
        call.seen["session"] = created.session.id
        if session:
            await one.configure(**session)
        yield one
        await connection.close()
        await driver.ends_quietly(one.reader, "the reading of events")
    await client.close()


def text_of(response: Any) -> str:
    part = response.output[-1].content[0]
    return str(part.text or part.transcript)


async def connect(call: Call) -> None:
    async with line(call) as one:
        updated = await one.configure(instructions="Be brief.", output_modalities=["text"])
        check(updated.instructions == "Be brief.", "the settings were not taken")


async def text_turn(call: Call) -> None:
    async with line(call, output_modalities=["text"]) as one:
        await one.turn(driver.WORD)
        said = text_of(await one.turn(driver.ASK))
        check(driver.ANSWER in said.lower(), f"the code word was not remembered: {said}")
        deltas = "".join(event.delta for event in one.of("response.output_text.delta"))
        check(deltas.endswith(said), "the deltas differ from the whole")


async def audio_turn(call: Call) -> None:
    async with line(call, audio={"input": {"turn_detection": {"type": "server_vad"}}}) as one:
        await one.speak("times")
        started = await one.wait("input_audio_buffer.speech_started")
        await one.wait("input_audio_buffer.speech_stopped")
        committed = await one.wait("input_audio_buffer.committed")
        check(committed.item_id == started.item_id, "another item was committed than was begun")
        heard = "conversation.item.input_audio_transcription.completed"
        done = await one.wait(
            "response.done",
            lambda event: event.response.output and event.response.output[-1].type == "message",
        )
        words = text_of(done.response).lower()
        check("84" in words or "eighty" in words, f"the answer was not spoken: {words}")
        check(one.audio_ms() > 500, f"only {one.audio_ms():.0f} ms of sound came")
        said = [event.transcript.lower() for event in one.of(heard)]
        check(said and "twelve times seven" in said[0], f"the caller was heard as {said}")
        call.seen["heard"] = said


async def barge_in(call: Call) -> None:
    async with line(call) as one:
        await one.speak("about")
        item = (await one.wait("response.output_item.added", lambda event: event.item.type == "message")).item
        await one.wait("response.output_audio.delta")
        playing = driver.Playing(one.news.came)
        await asyncio.sleep(1.0)
        speaking = asyncio.create_task(one.speak("stop"))
        await one.wait("input_audio_buffer.speech_started")
        played = playing.interrupt(call, one.audio_ms())
        await one.connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=played)
        done = (await one.wait("response.done")).response
        cut = (done.status, done.status_details.reason if done.status_details else None)
        check(cut == ("cancelled", "turn_detected"), f"the answer was not cut: {cut}")
        after = (await one.wait("response.done")).response
        check(after.status == "completed", f"the next answer is {after.status}")
        await speaking
        kept = [
            event.audio_end_ms for event in one.of("conversation.item.truncated") if event.item_id == item.id
        ]
        check(kept and kept[-1] <= played + 1, f"{played} ms were played, {kept} were kept")


async def tool_call(call: Call) -> None:
    async with line(call, output_modalities=["text"], tools=TOOLS) as one:
        wish = await one.turn(driver.CALL_ONE)
        check([item.name for item in wish.output] == ["stock"], "expected one call of stock")
        said = text_of(await one.answer_tools(wish))
        check("17" in said, f"the result is not in the answer: {said}")


async def parallel_tool_calls(call: Call) -> None:
    async with line(call, output_modalities=["text"], tools=TOOLS) as one:
        wish = await one.turn(driver.CALL_BOTH)
        check(
            [item.name for item in wish.output] == ["stock", "price"], "expected both calls in one response"
        )
        last = await one.answer_tools(wish)
        check(last.output[0].type == "message", "expected an answer after both results")


async def manual_commit(call: Call) -> None:
    async with line(call, output_modalities=["text"], audio={"input": {"turn_detection": None}}) as one:
        await one.speak("fact-tiger-seven")
        await one.connection.input_audio_buffer.commit()
        committed = await one.wait("input_audio_buffer.committed")
        await one.wait("conversation.item.done", lambda event: event.item.id == committed.item_id)
        check(not one.of("response.created"), "a response came before it was asked for")
        await one.connection.response.create()
        await one.wait("response.done")
        said = text_of(await one.turn(driver.ASK))
        check(driver.ANSWER in said.lower(), f"what was said is not known: {said}")


async def error_path(call: Call) -> None:
    async with line(call, output_modalities=["text"]) as one:
        await one.connection.session.update(
            session={"type": "realtime", "output_modalities": ["smell"]}, event_id="mine"
        )
        error = (await one.wait("error")).error
        check(error.type == "invalid_request_error", f"the error's type is {error.type}")
        check(error.event_id == "mine", "the error does not name the event")
        await one.connection.response.cancel()
        check((await one.wait("error")).error.code == "response_cancel_not_active", "another code")
        check((await one.turn("Hello there.")).status == "completed", "no turn after the errors")
        call.seen["code"] = error.code


async def clean_close(call: Call) -> None:
    async with line(call, output_modalities=["text"]) as one:
        await one.turn("Hello there.")


if __name__ == "__main__":
    driver.main(
        "openai",
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
