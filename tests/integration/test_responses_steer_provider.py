"""``response.steer`` where the model's provider steers: the input goes there, and the client sees what it always sees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.gateway import spoken_agent, stories
from integration.responses_line import (
    ENDS,
    TOOL,
    Json,
    Wire,
    client_of,
    each_store,
    gateway,
    socket_of,
    steer,
    text_of,
    until,
)
from integration.steered_provider import TALK, Provider, texts
from openline.bootstrap import Running
from openline.testing.fake_responses_steer import SteerKind, SteerPlan


@asynccontextmanager
async def steering(
    data: Path, gateways: int = 1, **settings: Any
) -> AsyncIterator[tuple[Provider, Running, Wire]]:
    """A provider, so many gateways in a row in front of it, and a client's socket on the first."""
    provider = Provider()
    async with provider.fake, AsyncExitStack() as stack:
        url = provider.fake.url
        near: Running | None = None
        for number in range(gateways):
            more = {"model": "embedded", "llm_url": url, "llm_model": "m", **settings}
            near = await stack.enter_async_context(
                gateway(data / str(number), agent=spoken_agent("x", builtin_tools=False), **more)
            )
            url = f"{near.url}/v1"
        assert near is not None
        yield provider, near, await stack.enter_async_context(socket_of(near))


async def talk(line: Wire, text: str = TALK, **more: Any) -> str:
    """A response that has begun and holds; its id."""
    await line.send(input=text, store=False, **more)
    kind = "output_item.done" if text == "call" else "output_text.delta"
    return str((await until(line, f"response.{kind}"))[0]["response"]["id"])


async def reached(provider: Provider) -> None:
    """The steer is with the provider: the client hears "accepted" from the gateway, which may be earlier."""
    async with asyncio.timeout(5):
        while not provider.fake.steered:
            await asyncio.sleep(0.005)


async def accepted(line: Wire, previous: str, given: Any = "also B") -> str:
    await steer(line, previous, given)
    event = await line.next()
    assert event["type"] == "response.steer.accepted"
    assert event["steer"]["previous_response_id"] == previous
    return str(event["steer"]["id"])


@pytest.mark.parametrize("gateways", [1, 2, 3])
@pytest.mark.parametrize("lane", [None, "a"])
def test_the_input_reaches_the_provider_through_every_gateway(
    tmp_path: Path, gateways: int, lane: str | None
) -> None:
    named = {} if lane is None else {"stream_id": lane}

    async def story() -> None:
        async with steering(tmp_path, gateways) as (provider, _, line):
            first = await talk(line, metadata={"k": "v"}, **named)
            await accepted(line, first)
            cut = (await line.until_end(lane))[-1]["response"]
            assert (cut["id"], cut["status"]) == (first, "incomplete")
            assert cut["incomplete_details"] == {"reason": "steered"}
            assert [item["status"] for item in cut["output"]] == ["incomplete"]
            then = await line.until_end(lane)
            assert then[0]["response"]["previous_response_id"] == first
            assert then[0]["response"]["metadata"] == {"k": "v"}, "it inherits the settings"
            assert text_of(then[-1]) == "3: also B"
            second = then[-1]["response"]["id"]
            assert second not in (first, None)
            assert len(provider.creates) == 1, "the successor is the provider's own"
            (steered,) = provider.fake.steered
            assert texts(steered["input"]) == ["also B"]
            end = await line.ask(input="on", store=False, previous_response_id=second, **named)
            assert text_of(end) == "5: on"
            assert texts(provider.creates[-1]["input"]) == ["on"], "the chain goes on with what is new"
            assert provider.known[-1] == [TALK, "begun", "also B", "3: also B", "on"]

    asyncio.run(story())


@each_store
def test_the_stock_client_steers_two_gateways_in_a_row(tmp_path: Path, store: bool) -> None:
    """openai-python, with its own method for it. A stored response is cut by the first gateway: it sees the same."""

    async def story() -> None:
        async with steering(tmp_path, 2) as (provider, near, _), client_of(near).responses.connect() as line:
            await line.response.create(model="m", input=TALK, store=store)
            seen = []
            async for event in line:
                seen.append(event)
                if event.type == "response.output_text.delta" and len(seen) == 5:
                    previous = seen[0].response.id
                    await line.response.steer(input="also B", previous_response_id=previous)
                if event.type == "response.completed":
                    break
            told = [event.type for event in seen if event.type.count(".") == 1 or "steer" in event.type]
            begun = ["response.created", "response.in_progress"]
            steered = ["response.steer.accepted", "response.incomplete"]
            assert told == [*begun, *steered, *begun, "response.completed"]
            assert seen[-1].response.output_text == "3: also B"
            assert seen[-1].response.previous_response_id == seen[0].response.id
            assert provider.known == [[TALK], [TALK, "begun", "also B"]]
            assert len(provider.fake.steered) == (not store)

    asyncio.run(story())


@pytest.mark.parametrize("gateways", [1, 2])
def test_a_reply_that_ends_first_is_followed_by_the_input(tmp_path: Path, gateways: int) -> None:
    async def story() -> None:
        async with steering(tmp_path, gateways) as (provider, _, line):
            provider.fake.steers.append(SteerPlan("finish"))
            first = await talk(line)
            await accepted(line, first)
            await reached(provider)
            provider.never.set()
            end = (await line.until_end())[-1]
            assert (end["type"], text_of(end)) == ("response.completed", "begun to talk")
            assert text_of((await line.until_end())[-1]) == "3: also B"
            assert len(provider.creates) == 1

    asyncio.run(story())


@pytest.mark.parametrize("gateways", [1, 2])
def test_input_waits_at_the_provider_for_the_outputs_of_calls(tmp_path: Path, gateways: int) -> None:
    async def story() -> None:
        async with steering(tmp_path, gateways) as (provider, _, line):
            first = await talk(line, "call", tools=[TOOL])
            steer_id = await accepted(line, first)
            await reached(provider)
            provider.never.set()
            end = (await line.until_end())[-1]
            assert end["type"] == "response.completed"
            pending = await line.next()
            assert (pending["type"], pending["steer"]["id"]) == ("response.steer.pending", steer_id)
            (needed,) = pending["required_input"]
            output = {**needed, "output": "12"}
            del output["name"]
            answer = await line.ask(input=[output], store=False, previous_response_id=first, tools=[TOOL])
            assert text_of(answer) == "4: 12"
            assert provider.known[-1] == ["call", "check_stock", "also B", "12"]
            assert texts(provider.creates[-1]["input"]) == ["12"], "the provider has the input already"

    asyncio.run(story())


def test_what_the_provider_cannot_read_is_given_back_and_the_response_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with steering(tmp_path) as (provider, _, line):
            provider.fake.steers.append(SteerPlan("refuse", "invalid_input"))
            first = await talk(line)
            steer_id = await accepted(line, first)
            failed = json.loads(await line.socket.recv())
            assert failed["type"] == "response.steer.failed"
            assert failed["error"]["code"] == "invalid_input"
            assert failed["steer"] == {"input": "also B", "previous_response_id": first, "id": steer_id}
            provider.never.set()
            end = (await line.until_end())[-1]
            assert (end["type"], text_of(end)) == ("response.completed", "begun to talk")
            answer = await line.ask(input="on", store=False, previous_response_id=first)
            assert text_of(answer) == "3: on", "nothing follows by itself"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("refuse", "steering_not_supported"),
        ("refuse", "too_many_pending_steers"),
        ("refuse", "successor_creation_failed"),
        ("refuse", "a_new_one"),
        ("unknown", ""),
        ("close", ""),
        ("close_before", ""),
    ],
)
@pytest.mark.parametrize("gateways", [1, 2])
def test_where_the_provider_does_not_do_it_it_is_done_here(
    tmp_path: Path, kind: SteerKind, code: str, gateways: int
) -> None:
    """Refused, unknown there, or lost on the way: the client sees the same, and the input is applied once."""

    async def story() -> None:
        async with steering(tmp_path, gateways) as (provider, _, line):
            provider.fake.steers.append(SteerPlan(kind, code))
            first = await talk(line)
            await accepted(line, first)
            cut = (await line.until_end())[-1]
            assert cut["response"]["incomplete_details"] == {"reason": "steered"}
            assert text_of(cut) == "begun"
            then = (await line.until_end())[-1]
            assert text_of(then) == "3: also B"
            assert provider.known[-1] == [TALK, "begun", "also B"]
            assert len(provider.creates) == 2
            more = {"store": False, "previous_response_id": then["response"]["id"]}
            assert text_of(await line.ask(input="on", **more)) == "5: on"
            assert provider.known[-1].count("also B") == 1

    asyncio.run(story())


@pytest.mark.parametrize("code", ["response_already_completed", "response_not_active", "response_not_found"])
def test_input_that_comes_too_late_for_the_provider_follows_the_whole_reply(
    tmp_path: Path, code: str
) -> None:
    async def story() -> None:
        async with steering(tmp_path) as (provider, _, line):
            provider.fake.steers.append(SteerPlan("refuse", code))
            first = await talk(line)
            await accepted(line, first)
            await reached(provider)
            provider.never.set()
            assert text_of((await line.until_end())[-1]) == "begun to talk"
            assert text_of((await line.until_end())[-1]) == "3: also B"
            assert provider.known == [[TALK], [TALK, "begun to talk", "also B"]]

    asyncio.run(story())


def test_one_input_that_the_provider_took_and_one_that_it_refused_follow_together(tmp_path: Path) -> None:
    async def story() -> None:
        async with steering(tmp_path) as (provider, _, line):
            provider.fake.steers += [SteerPlan("finish"), SteerPlan("refuse", "too_many_pending_steers")]
            first = await talk(line)
            await accepted(line, first, "B")
            await accepted(line, first, "C")
            assert (await line.until_end())[-1]["response"]["incomplete_details"] == {"reason": "steered"}
            assert text_of((await line.until_end())[-1]) == "4: C"
            assert provider.known[-1] == [TALK, "begun", "B", "C"]

    asyncio.run(story())


def test_a_successor_that_is_lost_fails_and_what_was_said_to_it_is_known(tmp_path: Path) -> None:
    async def story() -> None:
        async with steering(tmp_path) as (provider, _, line):
            provider.fake.steers.append(SteerPlan("close_after"))
            await accepted(line, await talk(line))
            assert (await line.until_end())[-1]["type"] == "response.incomplete"
            assert (await line.until_end())[-1]["type"] == "response.failed"
            assert text_of(await line.ask(input="again", store=False)) == "1: again"

    asyncio.run(story())


@pytest.mark.parametrize("gateways", [1, 2])
def test_a_response_that_is_cancelled_gives_its_input_back(tmp_path: Path, gateways: int) -> None:
    async def story() -> None:
        async with steering(tmp_path, gateways) as (provider, _, line):
            provider.fake.steers.append(SteerPlan("finish"))
            first = await talk(line)
            steer_id = await accepted(line, first)
            await line.socket.send(json.dumps({"type": "response.cancel", "response_id": first}))
            end = (await until(line, *ENDS))[-1]
            assert end["response"]["status"] == "cancelled"
            failed = await line.next()
            assert (failed["error"]["code"], failed["steer"]["id"]) == ("response_not_active", steer_id)
            assert text_of(await line.ask(input="on", store=False)) == "1: on"
            assert len(provider.known) == 2, "nothing was made of the input"

    asyncio.run(story())


@pytest.mark.parametrize("lanes", [1, 4])
def test_two_lanes_at_once_are_steered_each_by_its_own(tmp_path: Path, lanes: int) -> None:
    async def story() -> None:
        async with steering(tmp_path, llm_lanes=lanes) as (provider, _, line):
            ids = {name: await talk(line, stream_id=name) for name in ("a", "b")}
            for name, previous in ids.items():
                await steer(line, previous, f"for {name}")
            ended: dict[str, list[Json]] = {"a": [], "b": []}
            while min(map(len, ended.values())) < 2:
                event = await line.next()
                if event["type"] in ENDS:
                    ended[event["stream_id"]].append(event)
            for name, (cut, then) in ended.items():
                assert cut["response"]["id"] == ids[name]
                assert then["response"]["previous_response_id"] == ids[name]
                assert text_of(then) == f"3: for {name}"
            assert len(provider.creates) == 2

    asyncio.run(story())


def test_a_stored_response_is_cut_here_and_its_log_says_so(tmp_path: Path) -> None:
    """What the provider would begin by itself no step of the log explains: it is asked anew."""

    async def story() -> None:
        async with steering(tmp_path) as (provider, near, line):
            await line.send(input=TALK)
            first = str((await until(line, "response.output_text.delta"))[0]["response"]["id"])
            await accepted(line, first)
            assert (await line.until_end())[-1]["response"]["incomplete_details"] == {"reason": "steered"}
            assert text_of((await line.until_end())[-1]) == "3: also B"
            assert not provider.fake.steered and provider.known[-1] == [TALK, "begun", "also B"]
            kept = await client_of(near).responses.retrieve(first)
            assert kept.status == "incomplete"

    asyncio.run(story())
    (told,) = stories(tmp_path / "0").values()
    assert told.types().index("response.done") < told.types().index("response.created", 8)
