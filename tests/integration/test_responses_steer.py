"""``response.steer``: input for a response that is being made; it ends at its next boundary and the input follows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from integration.gateway import stories
from integration.responses_line import (
    ENDS,
    client_of,
    each_store,
    echo,
    gateway,
    socket_of,
    steer,
    text_of,
    until,
)
from openline.errors import LinkUnavailable
from openline.ports import ModelRequest
from openline.testing.llm import Call, Fail, Script, Wait, say


def talker(never: asyncio.Event) -> Any:
    """Begins to talk and does not end, when it is asked to; echoes all else."""

    def scripts(request: ModelRequest) -> Script:
        return [say("begun to"), Wait(never)] if request.items[-1].text == "talk" else echo(request)

    return scripts


@each_store
def test_a_response_that_speaks_is_cut_and_its_successor_has_the_input(tmp_path: Path, store: bool) -> None:
    data = tmp_path / "d"

    async def story() -> None:
        never = asyncio.Event()
        async with gateway(data, talker(never)) as started, socket_of(started) as line:
            await line.send(input="talk", store=store, stream_id="a", metadata={"k": "v"})
            first = (await until(line, "response.output_text.delta"))[0]["response"]["id"]
            await until(line, "response.output_text.delta")
            await steer(line, first)
            accepted = await line.next()
            assert accepted["type"] == "response.steer.accepted" and accepted["stream_id"] == "a"
            assert accepted["steer"]["previous_response_id"] == first
            cut = (await until(line, *ENDS))[-1]
            assert cut["type"] == "response.incomplete"
            assert cut["response"]["incomplete_details"] == {"reason": "steered"}
            assert text_of(cut) == "begun to"
            then = await line.until_end("a")
            assert then[0]["response"]["previous_response_id"] == first
            assert then[0]["response"]["metadata"] == {"k": "v"}, "it inherits the settings"
            assert text_of(then[-1]) == "3: also B"
            again = await line.ask(
                input="on", store=store, stream_id="a", previous_response_id=then[-1]["response"]["id"]
            )
            assert text_of(again) == "5: on"
            if store:
                kept = await client_of(started).responses.retrieve(first)
                assert kept.incomplete_details is not None
                assert str(kept.incomplete_details.reason) == "steered"

    asyncio.run(story())
    if store:
        (told,) = stories(data).values()
        assert [done.reason for done in told.of("response.done")] == ["steered", "", ""]


@each_store
def test_several_inputs_follow_together_and_before_what_waits(tmp_path: Path, store: bool) -> None:
    async def story() -> None:
        gate = asyncio.Event()

        def scripts(request: ModelRequest) -> Script:
            calls = [Call("stock", "{}", "call_1"), Wait(gate)]
            return calls if request.items[-1].text == "talk" else echo(request)

        async with gateway(tmp_path / "d", scripts) as started, socket_of(started) as line:
            await line.send(input="talk", store=store)
            first = (await until(line, "response.output_item.done"))[0]["response"]["id"]
            await line.send(input="waits", store=store)
            for text in ("B", "C"):
                await steer(line, first, [{"role": "user", "content": text}])
                assert (await line.next())["type"] == "response.steer.accepted"
            gate.set()
            end = (await until(line, *ENDS))[-1]
            assert end["type"] == "response.completed", "a response that calls ends by itself"
            for _ in "BC":
                pending = await line.next()
                assert pending["type"] == "response.steer.pending"
                assert pending["reason"] == "waiting_for_required_input"
                assert pending["required_input"] == [
                    {"type": "function_call_output", "call_id": "call_1", "name": "stock"}
                ]
            assert text_of((await line.until_end())[-1]) == "1: waits", "another chain does not take them"

    asyncio.run(story())


@each_store
def test_input_waits_for_the_outputs_of_the_calls(tmp_path: Path, store: bool) -> None:
    async def story() -> None:
        gate = asyncio.Event()
        seen: list[list[str]] = []

        def scripts(request: ModelRequest) -> Script:
            seen.append([item.text or item.output or item.name for item in request.items])
            is_first = request.items[-1].text == "talk"
            return [Call("stock", "{}", "call_1"), Wait(gate)] if is_first else echo(request)

        async with gateway(tmp_path / "d", scripts) as started, socket_of(started) as line:
            await line.send(input="talk", store=store)
            first = (await until(line, "response.output_item.done"))[0]["response"]["id"]
            await steer(line, first)
            await line.next()
            gate.set()
            await until(line, "response.steer.pending")
            output = {"type": "function_call_output", "call_id": "call_1", "output": "12"}
            end = await line.ask(input=[output], previous_response_id=first, store=store)
            assert text_of(end) == "4: also B"
            assert seen[-1] == ["talk", "stock", "12", "also B"]

    asyncio.run(story())


def test_what_cannot_steer_is_given_back(tmp_path: Path) -> None:
    async def story() -> None:
        never, gate = asyncio.Event(), asyncio.Event()

        def scripts(request: ModelRequest) -> Script:
            match request.items[-1].text:
                case "fail":
                    return [Call("stock", "{}", "call_1"), Wait(gate), Fail(LinkUnavailable("down"))]
                case _:
                    return talker(never)(request)  # type: ignore[no-any-return]  # the echo is untyped

        async with gateway(tmp_path / "d", scripts) as started, socket_of(started) as line:

            async def refused(previous: str, given: Any = "also", **more: Any) -> str:
                await steer(line, previous, given, **more)
                # Not through the typed models: what could not be taken goes back as it came, and fits none.
                failed = json.loads(await line.socket.recv())
                assert failed["type"] == "response.steer.failed", failed
                assert failed["steer"]["input"] == given
                return str(failed["error"]["code"])

            assert await refused("resp_none") == "response_not_found"
            done = (await line.ask(input="x", store=False))["response"]["id"]
            assert await refused(done) == "response_already_completed"
            await line.send(input="fail", store=False)
            first = (await until(line, "response.output_item.done"))[0]["response"]["id"]
            output = {"type": "function_call_output", "call_id": "c", "output": "x"}
            for wrong in ([], [{"role": "system", "content": "x"}], [output], 7):
                assert await refused(first, wrong) == "invalid_input", wrong
            assert await refused(first, stream_id="a") == "invalid_input"
            for _ in range(16):
                await steer(line, first)
                assert (await line.next())["type"] == "response.steer.accepted"
            assert await refused(first) == "too_many_pending_steers"
            gate.set()
            assert (await until(line, *ENDS))[-1]["type"] == "response.failed"
            backs = [await line.next() for _ in range(16)]
            assert {back["error"]["code"] for back in backs} == {"response_not_active"}
            assert all(back["steer"]["id"] for back in backs), "what had been accepted is named"

    asyncio.run(story())


def test_a_successor_that_cannot_be_made_gives_its_input_back(tmp_path: Path) -> None:
    async def story() -> None:
        never = asyncio.Event()
        async with gateway(tmp_path / "d", talker(never)) as started, socket_of(started) as line:
            await line.send(input="talk", store=False)
            first = (await until(line, "response.output_text.delta"))[0]["response"]["id"]
            started.gateway.begin_drain()
            await steer(line, first)
            failed = (await until(line, "response.steer.failed"))[-1]
            assert failed["error"]["code"] == "successor_creation_failed"
            assert failed["steer"]["input"] == "also B"

    asyncio.run(story())
