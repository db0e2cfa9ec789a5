"""``/v1/responses`` by stock ``openai`` clients: WebSocket mode, POST as JSON and as SSE, stored and passing.

Every event is checked against the client's own typed models, strictly.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest
import websockets
from openai.types.responses import Response as OpenAIResponse

from integration.gateway import spoken_agent, stories
from integration.responses_line import (
    ENDS,
    SERVER_EVENT,
    STREAM_EVENT,
    TOOL,
    Json,
    client_of,
    each_store,
    echo,
    gateway,
    socket_of,
    text_of,
)
from openline.adapters.llm_rules import RulesModel
from openline.errors import LinkUnavailable
from openline.ports import ModelRequest
from openline.testing.fake_responses import FakeProvider
from openline.testing.fake_responses_parts import Reply
from openline.testing.llm import Fail, Script, ScriptedModel, Wait, say

# ---------------------------------------------------------------------------------------- stock clients


@each_store
def test_openai_python_over_websocket(tmp_path: Path, store: bool) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started, client_of(started).responses.connect() as line:
            await line.response.create(model="m", input="hello", store=store, stream_id="main")
            kinds = []
            async for event in line:
                SERVER_EVENT.validate_python(event.to_dict(mode="json"))
                assert event.stream_id == "main"
                kinds.append(event.type)
                if event.type == "response.completed":
                    break
            assert event.response.output_text == "1: hello"
            assert (
                event.response.usage is not None
                and event.response.usage.input_tokens_details.cached_tokens == 2
            )
            assert [k for k in dict.fromkeys(kinds)] == [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.completed",
            ]
            previous = event.response.id
            await line.response.create(
                model="m", input="more", store=store, stream_id="main", previous_response_id=previous
            )
            async for event in line:
                if event.type == "response.completed":
                    break
            assert event.response.output_text == "3: more"

    asyncio.run(story())


@each_store
def test_openai_python_over_http(tmp_path: Path, store: bool) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started:
            client = client_of(started)
            whole = await client.responses.create(model="m", input="hello", store=store, metadata={"a": "b"})
            OpenAIResponse.model_validate(whole.to_dict(mode="json"))
            assert (whole.output_text, whole.status, whole.metadata) == ("1: hello", "completed", {"a": "b"})
            events = []
            more: Any = {"previous_response_id": whole.id} if store else {}
            async for event in await client.responses.create(
                model="m", input="more", store=store, stream=True, **more
            ):
                STREAM_EVENT.validate_python(event.to_dict(mode="json"))
                events.append(event)
            last = events[-1]
            assert last.type == "response.completed"
            assert last.response.output_text == ("3: more" if store else "1: more")
            if store:
                again = await client.responses.retrieve(last.response.id)
                assert again.output_text == "3: more" and again.usage == last.response.usage
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve("resp_none")

    asyncio.run(story())


class Order(pydantic.BaseModel):
    part: Literal["hinge", "bolt"]
    count: int
    reply: str


@each_store
def test_openai_python_parses_the_form_it_asked_for(tmp_path: Path, store: bool) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d", agent=spoken_agent(llm=RulesModel())) as started:
            client = client_of(started)
            made = await client.responses.parse(
                model="m", input="please order twelve hinges", store=store, text_format=Order
            )
            order = made.output_parsed
            assert order is not None and (order.part, order.count) == ("hinge", 12) and order.reply
            assert made.text is not None and made.text.format is not None
            assert made.text.format.type == "json_schema" and made.text.format.name == "Order"
            if store:
                again = await client.responses.retrieve(made.id)
                assert again.output_text == made.output_text
                assert again.text is not None and again.text.format == made.text.format
            # The form is of one response: the next one of the chain says what it likes.
            plain = await client.responses.create(model="m", input="hello", store=store)
            assert not plain.output_text.startswith("{")

    asyncio.run(story())


@each_store
def test_parallel_tool_calls_and_their_outputs(tmp_path: Path, store: bool) -> None:
    model = ScriptedModel(echo)

    async def story() -> None:
        async with gateway(tmp_path / "d", model) as started, socket_of(started) as line:
            await line.send(input=[{"role": "user", "content": "stock?"}], tools=[TOOL], store=store)
            events = await line.until_end()
            done = [e for e in events if e["type"] == "response.function_call_arguments.done"]
            assert [(e["name"], e["arguments"]) for e in done] == [
                ("stock", '{"part": "hinge"}'),
                ("stock", '{"part": "bolt"}'),
            ]
            first = events[-1]["response"]
            assert [item["type"] for item in first["output"]] == ["message", "function_call", "function_call"]
            assert {item["status"] for item in first["output"]} == {"completed"}
            outputs = [
                {"type": "function_call_output", "call_id": f"call_{n}", "output": f"{n}2"} for n in (1, 2)
            ]
            end = await line.ask(input=outputs, tools=[TOOL], previous_response_id=first["id"], store=store)
            assert text_of(end) == "6: 22"
            kinds = [item.type for item in model.requests[-1].items]
            calls = ["function_call"] * 2 + ["function_call_output"] * 2
            assert kinds == ["message", "message", *calls], "the message began before the calls"

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------- lanes


def test_lanes_run_beside_each_other_and_one_lane_in_order(tmp_path: Path) -> None:
    held = asyncio.Event()

    def scripts(request: ModelRequest) -> Script:
        return [Wait(held), *echo(request)] if request.items[-1].text == "slow" else echo(request)

    async def story() -> None:
        async with gateway(tmp_path / "d", scripts) as started, socket_of(started) as line:
            await line.send(input="slow", store=False, stream_id="a")
            await line.send(input="after", store=False, stream_id="a")
            assert (await line.next())["stream_id"] == "a"
            assert (await line.next())["type"] == "response.in_progress"
            assert text_of(await line.ask(input="quick", store=False, stream_id="b")) == "1: quick"
            held.set()
            assert text_of((await line.until_end("a"))[-1]) == "1: slow"
            assert text_of((await line.until_end("a"))[-1]) == "1: after"

    asyncio.run(story())


def test_a_lane_remembers_its_newest_response_only_and_a_fork_copies_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started, socket_of(started) as line:
            one = (await line.ask(input="1", store=False))["response"]["id"]
            fork = await line.ask(input="f", store=False, stream_id="fork", previous_response_id=one)
            two = await line.ask(input="2", store=False, previous_response_id=one)
            assert (text_of(fork), text_of(two)) == ("3: f", "3: 2")
            lost = await line.ask(input="x", store=False, previous_response_id=one)
            assert lost["error"]["code"] == "previous_response_not_found" and lost["status"] == 400
            again = await line.ask(input="3", store=False, previous_response_id=two["response"]["id"])
            assert text_of(again) == "5: 3"
            async with socket_of(started) as other:
                gone = await other.ask(input="x", store=False, previous_response_id=again["response"]["id"])
                assert gone["error"]["code"] == "previous_response_not_found", "it lived with its socket"

    asyncio.run(story())


def test_a_failed_continuation_evicts_its_parent(tmp_path: Path) -> None:
    def scripts(request: ModelRequest) -> Script:
        return [Fail(LinkUnavailable("down"))] if request.items[-1].text == "fail" else echo(request)

    async def story() -> None:
        async with gateway(tmp_path / "d", scripts) as started, socket_of(started) as line:
            one = (await line.ask(input="1", store=False))["response"]["id"]
            failed = await line.ask(input="fail", store=False, previous_response_id=one)
            assert failed["type"] == "response.failed"
            assert failed["response"]["error"]["code"] == "server_error"
            lost = await line.ask(input="2", store=False, previous_response_id=one)
            assert lost["error"]["code"] == "previous_response_not_found"

    asyncio.run(story())


def test_a_stored_response_that_fails_says_so_in_the_protocols_words(tmp_path: Path) -> None:
    def scripts(request: ModelRequest) -> Script:
        is_bad = request.items[-1].text == "fail"
        return [say("begun to"), Fail(LinkUnavailable("down"))] if is_bad else echo(request)

    async def story() -> None:
        async with gateway(tmp_path / "d", scripts) as started, socket_of(started) as line:
            failed = await line.ask(input="fail")
            assert failed["type"] == "response.failed"
            assert failed["response"]["error"]["code"] == "server_error"
            OpenAIResponse.model_validate(failed["response"])
            assert text_of(await line.ask(input="again")) == "1: again"

    asyncio.run(story())


def test_two_lanes_that_continue_one_stored_response_do_not_meet(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started:
            async with socket_of(started) as line:
                one = (await line.ask(input="one"))["response"]["id"]
            async with socket_of(started) as line:
                for lane in "ab":
                    await line.send(input=lane, previous_response_id=one, stream_id=lane)
                ends = []
                while len(ends) < 2:
                    event = await line.next()
                    ends += [event] if event["type"] in ENDS else []
                assert sorted(text_of(end) for end in ends) == ["3: a", "3: b"]
        assert len(stories(tmp_path / "d")) == 2

    asyncio.run(story())


def test_a_session_that_ends_in_the_middle_ends_its_response(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def story() -> None:
        scripts = ScriptedModel(lambda request: [say("begun"), Wait(never)])
        async with gateway(tmp_path / "d", scripts) as started, socket_of(started) as line:
            await line.send(input="talk")
            while (await line.next())["type"] != "response.output_text.delta":
                pass
            (row,) = await started.store.sessions()
            await started.control.end_session("default", row.session, "test")
            while (event := await line.next())["type"] not in ENDS:
                pass
            assert event["type"] in ("response.incomplete", "response.failed")

    asyncio.run(story())


def test_limits_of_names_and_lanes(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started, socket_of(started) as line:
            await line.send(input="x", store=False, stream_id="")
            assert (await line.next())["error"]["code"] == "invalid_stream_id"
            for number in range(32):
                await line.ask(input="x", store=False, stream_id=f"lane{number}")
            await line.send(input="x", store=False, stream_id="lane32")
            refused = await line.next()
            assert refused["error"]["code"] == "websocket_stream_limit_reached"
            assert refused["stream_id"] == "lane32"
            assert text_of(await line.ask(input="x", store=False, stream_id="lane31")) == "1: x"
            await line.socket.send("no json")
            assert (await line.next())["error"]["code"] == "invalid_json"
            await line.socket.send(json.dumps({"type": "response.dance"}))
            assert (await line.next())["error"]["code"] == "invalid_value"
            await line.socket.send(b"\x00")
            assert (await line.next())["type"] == "error"
            steer = {"type": "response.steer", "previous_response_id": "resp_1", "input": "also"}
            await line.socket.send(json.dumps(steer))
            failed = await line.next()
            assert failed["error"]["code"] == "response_not_found" and failed["steer"]["input"] == "also"

    asyncio.run(story())


@each_store
def test_a_warm_up_can_be_continued(tmp_path: Path, store: bool) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started, socket_of(started) as line:
            await line.send(input="context", store=store, generate=False)
            warm = await line.until_end()
            assert [e["type"] for e in warm] == [
                "response.created",
                "response.in_progress",
                "response.completed",
            ]
            response = warm[-1]["response"]
            assert response["output"] == [] and response["usage"]["output_tokens"] == 0
            end = await line.ask(input="go", store=store, previous_response_id=response["id"])
            assert text_of(end) == "2: go"

    asyncio.run(story())


@each_store
def test_cancel_ends_a_response_once(tmp_path: Path, store: bool) -> None:
    never = asyncio.Event()

    def scripts(request: ModelRequest) -> Script:
        return [say("begun to"), Wait(never)] if request.items[-1].text == "talk" else echo(request)

    async def story() -> None:
        async with gateway(tmp_path / "d", scripts) as started, socket_of(started) as line:
            await line.send(input="talk", store=store)
            while (event := await line.next())["type"] != "response.output_text.delta":
                if event["type"] == "response.created":
                    response_id = event["response"]["id"]
            await line.socket.send(json.dumps({"type": "response.cancel", "response_id": "resp_other"}))
            await line.socket.send(json.dumps({"type": "response.cancel", "response_id": response_id}))
            events = [await line.next()]
            while events[-1]["type"] not in ENDS:
                events.append(await line.next())
            end = events[-1]
            assert (end["type"], end["response"]["status"]) == ("response.incomplete", "cancelled")
            assert end["response"]["output"][0]["status"] == "incomplete"
            assert text_of(await line.ask(input="next", store=store)) == "1: next"

    asyncio.run(story())


def test_the_cap_and_the_drain_tell_clients_to_come_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started:
            started.responses.life_s = 0.05
            async with socket_of(started) as line:
                assert (await line.next())["error"]["code"] == "websocket_connection_limit_reached"
                with pytest.raises(websockets.ConnectionClosedOK):
                    await line.socket.recv()
            started.responses.life_s = 60
            async with socket_of(started) as line:
                await line.ask(input="x", store=False)
                started.responses.close()
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await line.socket.recv()
                assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012

    asyncio.run(story())


def test_bad_requests_over_http(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started:
            client = client_of(started)
            with pytest.raises(openai.BadRequestError, match="background"):
                await client.responses.create(model="m", input="x", background=True)
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(model="m", input="x", previous_response_id="resp_none")
            assert caught.value.code == "previous_response_not_found"
            with pytest.raises(openai.BadRequestError):
                await client.responses.create(
                    model="m", input="x", previous_response_id="resp_none", stream=True
                )

    asyncio.run(story())


def test_a_client_that_goes_away_stops_its_post(tmp_path: Path) -> None:
    never = asyncio.Event()
    model = ScriptedModel(lambda request: [say("begun"), Wait(never)])

    async def story() -> None:
        async with gateway(tmp_path / "d", model) as started:
            stream = await client_of(started).responses.create(model="m", input="x", store=False, stream=True)
            async for event in stream:
                if event.type == "response.output_text.delta":
                    break
            await stream.close()
            async with asyncio.timeout(5):
                while not model.closed:
                    await asyncio.sleep(0.01)

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------ chained


@pytest.mark.parametrize(("lanes", "store"), [(1, "off"), (4, "on")])
def test_the_voice_pipeline_of_one_gateway_thinks_with_another(
    tmp_path: Path, lanes: int, store: str
) -> None:
    """A's language model is ``llm_openai_responses`` against B's ``/v1/responses``."""

    async def story() -> None:
        async with gateway(tmp_path / "b") as far:
            mine = spoken_agent("good morning", builtin_tools=False)
            url = f"{far.url}/v1"
            settings: Json = {"model": "embedded", "llm_url": url, "llm_model": "m"}
            settings |= {"llm_lanes": lanes, "llm_store": store}
            async with gateway(tmp_path / "a", agent=mine, **settings) as near:
                async with client_of(near).realtime.connect(model="m") as line:
                    said = []
                    for text in ("one", "two"):
                        content: Any = [{"type": "input_text", "text": text}]
                        await line.conversation.item.create(
                            item={"type": "message", "role": "user", "content": content}
                        )
                        await line.response.create(response={"output_modalities": ["text"]})
                        async for event in line:
                            if event.type == "response.output_text.done":
                                said.append(event.text)
                            if event.type == "response.done":
                                break
                    assert said == ["1: one", "3: two"]
            assert (far.responses.passing_made, far.responses.stored_made) == (
                (2, 0) if store == "off" else (0, 2)
            )
        assert len(stories(tmp_path / "b")) == (store == "on"), (
            "the far chain is one session, if it may be stored"
        )

    asyncio.run(story())


def test_the_model_is_found_by_what_the_server_offers(tmp_path: Path) -> None:
    async def story() -> None:
        provider = FakeProvider(lambda body: Reply("Hello."), has_websocket=False, has_responses=False)
        async with provider:
            settings: Json = {"model": "embedded", "llm_url": provider.url, "llm_model": "m"}
            async with gateway(tmp_path / "a", agent=spoken_agent("x"), **settings) as started:
                whole = await client_of(started).responses.create(model="m", input="hi", store=False)
                assert whole.output_text == "Hello."
            assert [asked.path for asked in provider.requests] == ["/v1/chat/completions"]

    asyncio.run(story())


@pytest.mark.parametrize("setting", ["on", "off"])
def test_thoughts_are_asked_for_only_where_they_are_wanted(tmp_path: Path, setting: str) -> None:
    async def story() -> None:
        async with FakeProvider(lambda body: Reply("Hello.")) as provider:
            settings: Json = {"model": "embedded", "llm_url": provider.url, "llm_model": "m"}
            settings |= {"llm_reasoning": setting}
            async with gateway(tmp_path / "a", agent=spoken_agent("x"), **settings) as started:
                await client_of(started).responses.create(model="m", input="hi", store=False)
            wanted = provider.requests[0].body.get("include", [])
            assert wanted == (["reasoning.encrypted_content"] if setting == "on" else [])

    asyncio.run(story())
