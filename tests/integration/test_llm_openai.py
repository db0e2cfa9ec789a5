"""Language models over real sockets against the fake provider: what goes well, and everything that does not."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

import pytest

from openline.adapters.llm_openai import Endpoint
from openline.adapters.llm_openai_http import HttpModel
from openline.adapters.llm_openai_responses import ResponsesModel
from openline.adapters.llm_openai_responses_sockets import SocketPlan, with_lanes
from openline.core.model import Item, Part
from openline.core.value import replace
from openline.errors import ConfigError, LinkError, LinkNotOffered, LinkRejected, LinkUnavailable
from openline.ports import (
    LanguageModel,
    ModelDone,
    ModelEvent,
    ModelRequest,
    RefusalDelta,
    TextDelta,
    ToolCallDone,
)
from openline.testing.check_llm import PART_TOOL, ask, check_language_model, check_steering, check_stream
from openline.testing.fake_responses import FakeProvider as Fake
from openline.testing.fake_responses_parts import Fault, FaultKind, Reply
from openline.types import ItemId, ResponseId, SessionId

Make = Callable[[Endpoint], LanguageModel]
WS = SocketPlan(wait_s=5, stall_s=5, drain_s=1)
MODELS: dict[str, Make] = {
    "ws": lambda endpoint: ResponsesModel(endpoint, WS),
    "ws-lanes": lambda endpoint: ResponsesModel(endpoint, with_lanes(WS, 4)),
    "responses": lambda endpoint: HttpModel(endpoint, "responses", stall_s=5),
    "chat": lambda endpoint: HttpModel(endpoint, "chat", stall_s=5),
}
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def user(text: str, number: int) -> Item:
    return Item(ItemId(f"item_u{number}"), "message", "user", "user", content=(Part("input_text", text),))


def said(text: str, number: int) -> Item:
    parts = (Part("output_text", text),)
    return Item(ItemId(f"item_a{number}"), "message", "assistant", "assistant", content=parts)


def request(*items: Item, session: str = "sess_one", **more: Any) -> ModelRequest:
    asked = ModelRequest(SessionId(session), ResponseId("resp_1"), "Be brief.", items, (), '"auto"')
    return replace(asked, **more)


@asynccontextmanager
async def talking(provider: Fake, make: Make | None = None, key: str = "k") -> AsyncIterator[Any]:
    """A provider and a model over it, both ended at the end."""
    async with provider:
        model = (make or MODELS["ws"])(Endpoint(provider.url, "fake-1", lambda: key))
        await model.start()
        try:
            yield model
        finally:
            await model.close()


async def whole(model: LanguageModel, asked: ModelRequest) -> list[ModelEvent]:
    async with asyncio.timeout(10):
        events = [event async for event in model.generate(asked)]
    check_stream(events)
    return events


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def obedient(body: dict[str, Any]) -> Reply:
    if body.get("max_output_tokens") or body.get("max_tokens"):
        return Reply("one two", cut=True)
    is_forced = body.get("tool_choice", "auto") not in ("auto", "none")
    return (
        Reply(calls=(("check_stock", '{"part": "hinge"}'),))
        if is_forced
        else Reply("one two three four", pace_s=0.002)
    )


@each_model
def test_every_one_keeps_the_rules_of_the_port(make: Make) -> None:
    async def story() -> None:
        async with Fake(obedient) as provider:
            endpoint = Endpoint(provider.url, "fake-1")
            await check_language_model(lambda: make(endpoint), is_deterministic=False)

    asyncio.run(story())


@pytest.mark.parametrize("name", MODELS)
def test_every_one_keeps_the_rules_of_steering(name: str) -> None:
    async def story() -> None:
        async with Fake(obedient) as provider:
            endpoint = Endpoint(provider.url, "fake-1")
            await check_steering(lambda: MODELS[name](endpoint), is_offered=name.startswith("ws"))

    asyncio.run(story())


@each_model
def test_parallel_calls_refusals_and_cached_tokens_are_carried(make: Make) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        calls = (("check_stock", '{"part":"hinge"}'), ("check_stock", '{"part":"bolt"}'))
        return Reply("Let me look.", calls) if body.get("tools") else Reply(refusal="I cannot say that.")

    async def story() -> None:
        async with talking(Fake(reply), make) as model:
            events = await whole(model, request(user("stock?", 1), tools=(PART_TOOL,)))
            calls = [event for event in events if isinstance(event, ToolCallDone)]
            assert [json.loads(call.arguments)["part"] for call in calls] == ["hinge", "bolt"]
            assert text_of(events) == "Let me look."
            refused = await whole(model, request(user("a secret", 1), session="sess_two"))
            said = [event.text for event in refused if isinstance(event, RefusalDelta)]
            assert "".join(said) == "I cannot say that." and not text_of(refused)
            done = refused[-1]
            assert isinstance(done, ModelDone) and done.usage.input_tokens > 0

    asyncio.run(story())


# --------------------------------------------------------------------------------------------- the chain


def test_only_new_items_are_sent_and_a_cut_reply_is_sent_whole() -> None:
    async def story() -> None:
        provider = Fake()
        async with talking(provider) as model:
            items = [user("first " + "long " * 500, 1)]
            for number in range(2, 8):
                events = await whole(model, request(*items))
                items += [said(text_of(events), number), user(f"turn {number}", number)]
            sizes = [asked.bytes for asked in provider.requests]
            assert sizes[0] > 2_500 and max(sizes[1:]) < 400, "bytes of a turn do not grow with the history"
            assert max(sizes[1:]) - min(sizes[1:]) < 5
            assert all(asked.body["previous_response_id"] for asked in provider.requests[1:])
            items[-2] = said("turn", 99)  # the caller heard only this much
            await whole(model, request(*items))
            last = provider.requests[-1].body
            assert "previous_response_id" not in last and len(last["input"]) == len(items)
            assert model.statistics.whole == 2 and model.statistics.continued == 5

    asyncio.run(story())


def test_results_of_parallel_calls_that_the_gateway_ran_continue_the_chain() -> None:
    calls = tuple(("check_stock", f'{{"part":"{part}"}}') for part in ("hinge", "bolt"))

    def reply(body: dict[str, Any]) -> Reply:
        outputs = sum(item["type"] == "function_call_output" for item in body["input"])
        return Reply(calls=calls) if outputs < 4 else Reply("All there.")

    async def story() -> None:
        provider = Fake(reply)
        async with talking(provider) as model:
            items = [user("stock?", 1)]
            for _ in range(2):
                for event in await whole(model, request(*items, tools=(PART_TOOL,))):
                    if isinstance(event, ToolCallDone):
                        base = Item(ItemId(event.call_id), "mcp_call", "assistant", call_id=event.call_id)
                        ran = replace(base, name=event.name, arguments=event.arguments, output="12")
                        items.append(ran)
            events = await whole(model, request(*items, tools=(PART_TOOL,)))
            assert text_of(events) == "All there."
            shapes = [[item["type"] for item in asked.body["input"]] for asked in provider.requests]
            assert shapes[1:] == [["function_call_output"] * 2] * 2

    asyncio.run(story())


def test_a_call_still_running_is_told_as_pending_and_its_result_later_with_the_whole() -> None:
    async def story() -> None:
        provider = Fake()
        async with talking(provider) as model:
            call = Item(ItemId("c"), "function_call", "assistant", call_id="call_7", name="slow")
            await whole(model, request(user("go", 1), call))
            assert provider.requests[0].body["input"][-1]["output"] == '{"status":"pending"}'
            output = Item(ItemId("o"), "function_call_output", "tool", call_id="call_7", output="done")
            await whole(model, request(user("go", 1), call, output))
            assert "previous_response_id" not in provider.requests[1].body

    asyncio.run(story())


def test_reasoning_goes_back_in_front_of_its_call_when_the_context_is_sent_whole() -> None:
    def reply(body: dict[str, Any]) -> Reply:
        outputs = [item for item in body["input"] if item["type"] == "function_call_output"]
        return Reply("Twelve.") if outputs else Reply(reasoning="sealed", calls=(("check_stock", "{}"),))

    async def story() -> None:
        provider = Fake(reply)
        plan = replace(WS, encrypted_reasoning=True)
        async with talking(provider, lambda endpoint: ResponsesModel(endpoint, plan)) as model:
            events = await whole(model, request(user("stock?", 1), tools=(PART_TOOL,)))
            call = next(event for event in events if isinstance(event, ToolCallDone))
            assert provider.requests[0].body["include"] == ["reasoning.encrypted_content"]
            item = Item(ItemId("c"), "function_call", "assistant", call_id=call.call_id, name=call.name)
            output = Item(ItemId("o"), "function_call_output", "tool", call_id=call.call_id, output="12")
            provider.faults.append(Fault("not_found"))
            assert text_of(await whole(model, request(user("stock?", 1), item, output))) == "Twelve."
            sent = provider.requests[-1].body["input"]
            kinds = [entry["type"] for entry in sent]
            assert kinds == ["message", "reasoning", "function_call", "function_call_output"]
            assert sent[1]["encrypted_content"] == "sealed"
            assert model.statistics.not_found == 1 and model.statistics.retried == 1

    asyncio.run(story())


def test_a_warm_up_prepares_the_context_and_the_turn_sends_only_what_is_new() -> None:
    async def story() -> None:
        provider = Fake()
        async with talking(provider) as model:
            await model.warm_up(request(user("long " * 300, 1)))
            await whole(model, request(user("long " * 300, 1), user("now", 2)))
            warm, turn = provider.requests
            assert warm.body["generate"] is False and "generate" not in turn.body
            assert [item["content"][0]["text"] for item in turn.body["input"]] == ["now"]

    asyncio.run(story())


def test_sessions_share_a_socket_by_lanes_and_each_keeps_its_chain() -> None:
    async def story() -> None:
        provider = Fake()
        async with talking(provider, MODELS["ws-lanes"]) as model:

            async def call(name: str) -> None:
                items = [user(f"{name} 1", 1)]
                for number in (2, 3):
                    events = await whole(model, request(*items, session=f"sess_{name}"))
                    assert text_of(events) == f"You said: {name} {number - 1}"
                    items += [said(text_of(events), number), user(f"{name} {number}", number)]

            await asyncio.gather(*(call(name) for name in "abcd"))
            assert provider.upgrades <= 4 and model.statistics.continued == 4
            assert {asked.body["stream_id"] for asked in provider.requests} <= {f"lane-{n}" for n in range(4)}

    asyncio.run(story())


# ---------------------------------------------------------------------------------------------- cancelling


@each_model
def test_closing_the_stream_stops_the_provider_at_once(make: Make) -> None:
    async def story() -> None:
        provider = Fake(lambda body: Reply("word " * 2_000, pace_s=0.001))
        async with talking(provider, make) as model:
            async with aclosing(model.generate(request(user("talk", 1)))) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        break
            async with asyncio.timeout(3):
                while not (provider.cancelled or provider.cut_off):
                    await asyncio.sleep(0.005)
            provider.reply = lambda body: Reply("Yes?")
            assert text_of(await whole(model, request(user("talk", 1), user("stop", 2)))) == "Yes?"

    asyncio.run(story())


@pytest.mark.parametrize(("drain_s", "honours"), [(1.0, True), (0.05, False), (0.0, True)])
def test_a_cancelled_lane_is_drained_or_its_socket_dropped(drain_s: float, honours: bool) -> None:
    async def story() -> None:
        provider = Fake(lambda body: Reply("word " * 2_000, pace_s=0.001), honours_cancel=honours)
        plan = replace(WS, drain_s=drain_s, sockets_max=1)
        async with talking(provider, lambda endpoint: ResponsesModel(endpoint, plan)) as model:
            events = model.generate(request(user("talk", 1)))
            await anext(events)
            await events.aclose()
            provider.reply = lambda body: Reply("Yes?")
            assert text_of(await whole(model, request(user("talk", 1), user("stop", 2)))) == "Yes?"
            is_dropped = not honours or drain_s == 0
            assert (model.statistics.dropped, provider.upgrades) == ((1, 2) if is_dropped else (0, 1))

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cap"),
        Fault("close", code=1001),
        Fault("close", code=1006),
        Fault("close", code=1011, after=1),
        Fault("garbage"),
        Fault("binary"),
        Fault("half_frame"),
        Fault("stray"),
        Fault("duplicate_done"),
        Fault("late_created"),
        Fault("only_completed"),
        Fault("big_frame"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.code}",
)
def test_the_conversation_does_not_notice(fault: Fault) -> None:
    """In its second turn, so that a chain is there to be lost."""

    async def story() -> None:
        provider = Fake()
        async with talking(provider) as model:
            first = text_of(await whole(model, request(user("one", 1))))
            provider.faults.append(fault)
            items = (user("one", 1), said(first, 2), user("two", 3))
            second = text_of(await whole(model, request(*items)))
            assert second == "You said: two"
            third = await whole(model, request(*items, said(second, 4), user("three", 5)))
            assert text_of(third) == "You said: three"

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["close", "half_frame", "garbage", "failed"])
def test_a_reply_that_was_begun_is_not_begun_again(kind: FaultKind) -> None:
    async def story() -> None:
        code: int | str = 1006 if kind == "close" else "server_error"
        provider = Fake(faults=deque([Fault(kind, after=5, code=code)]))
        async with talking(provider) as model:
            with pytest.raises(LinkUnavailable):
                await whole(model, request(user("a b c d e", 1)))
            assert len(provider.requests) == 1
            assert text_of(await whole(model, request(user("again", 1)))) == "You said: again"

    asyncio.run(story())


@pytest.mark.parametrize("make", [MODELS["responses"], MODELS["chat"]])
@pytest.mark.parametrize("kind", ["close", "half_frame", "garbage"])
def test_over_http_a_broken_reply_is_an_error(make: Make, kind: FaultKind) -> None:
    async def story() -> None:
        async with talking(Fake(faults=deque([Fault(kind, after=3)])), make) as model:
            with pytest.raises(LinkUnavailable):
                await whole(model, request(user("a b c d e", 1)))
            assert text_of(await whole(model, request(user("again", 1)))) == "You said: again"

    asyncio.run(story())


def test_a_silent_provider_is_given_up() -> None:
    async def story() -> None:
        for make in (
            lambda endpoint: ResponsesModel(endpoint, replace(WS, stall_s=0.1)),
            lambda endpoint: HttpModel(endpoint, "chat", stall_s=0.1),
        ):
            async with talking(Fake(faults=deque([Fault("silence", after=2)])), make) as model:
                with pytest.raises(LinkUnavailable):
                    await whole(model, request(user("a b", 1)))

    asyncio.run(story())


@pytest.mark.parametrize(("think_s", "waits"), [(5.0, True), (0.1, False)])
def test_a_model_that_said_that_it_thinks_may_be_silent_for_longer(think_s: float, waits: bool) -> None:
    pondering = Reply("Twelve.", summary=("Hm.",), ponders_s=0.6)

    async def story() -> None:
        for make in (
            lambda endpoint: ResponsesModel(endpoint, replace(WS, stall_s=0.25, think_s=think_s)),
            lambda endpoint: HttpModel(endpoint, "responses", stall_s=0.25, think_s=think_s),
        ):
            async with talking(Fake(lambda body: pondering), make) as model:
                if waits:
                    assert text_of(await whole(model, request(user("a b", 1)))) == "Twelve."
                    continue
                with pytest.raises(LinkUnavailable, match=r"silent for 0\.1 s"):
                    await whole(model, request(user("a b", 1)))

    asyncio.run(story())


@each_model
@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("insufficient_quota", 429, LinkRejected),
        ("model_not_found", 404, LinkRejected),
        ("rate_limit_exceeded", 429, LinkUnavailable),
        ("server_is_overloaded", 503, LinkUnavailable),
        ("", 500, LinkUnavailable),
    ],
)
def test_permanent_errors_are_told_apart(make: Make, code: str, status: int, kind: type[Exception]) -> None:
    async def story() -> None:
        async with talking(Fake(faults=deque([Fault("error", code=code, status=status)])), make) as model:
            with pytest.raises(kind) as caught:
                await whole(model, request(user("hi", 1)))
            assert "127.0.0.1" in str(caught.value), "it names the link"
            assert (code or "HTTP 500") in str(caught.value), "and the cause"
            assert "hi" not in str(caught.value).split(), "and nothing that was said"
            assert text_of(await whole(model, request(user("again", 1)))) == "You said: again"

    asyncio.run(story())


@each_model
def test_a_wrong_key_is_refused_and_a_right_one_read_again_at_the_next_connect(make: Make) -> None:
    async def story() -> None:
        keys = iter(("wrong", "right", "right"))
        async with Fake(key="right") as provider:
            model = make(Endpoint(provider.url, "m", lambda: next(keys)))
            await model.start()
            with pytest.raises(LinkRejected, match="key"):
                await whole(model, request(user("hi", 1)))
            assert text_of(await whole(model, request(user("hi", 1)))) == "You said: hi"
            await model.close()

    asyncio.run(story())


@pytest.mark.parametrize("api", ["ws", "responses"])
def test_a_server_without_this_api_says_so(api: Literal["ws", "responses"]) -> None:
    async def story() -> None:
        async with talking(Fake(has_websocket=False, has_responses=False), MODELS[api]) as model:
            with pytest.raises(LinkNotOffered):
                await whole(model, request(user("hi", 1)))

    asyncio.run(story())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, LinkNotOffered),
        (302, LinkNotOffered),
        (400, LinkNotOffered),
        (403, LinkNotOffered),
        (426, LinkNotOffered),
        (429, LinkUnavailable),
        (503, LinkUnavailable),
    ],
)
def test_what_the_answer_to_an_upgrade_means(status: int, kind: type[Exception]) -> None:
    async def story() -> None:
        async with talking(Fake(upgrade_faults=deque([Fault("refuse", status=status)]))) as model:
            with pytest.raises(kind) as caught:
                await whole(model, request(user("hi", 1)))
            assert type(caught.value) is kind and str(status) in str(caught.value)
            assert text_of(await whole(model, request(user("hi", 1)))) == "You said: hi"

    asyncio.run(story())


def test_an_upgrade_that_is_closed_at_once_and_a_port_where_nobody_listens() -> None:
    async def story() -> None:
        provider = Fake(upgrade_faults=deque([Fault("close", code=1008)]))
        async with talking(provider) as model:
            assert text_of(await whole(model, request(user("hi", 1)))) == "You said: hi"
        for make in MODELS.values():
            model = make(Endpoint("http://127.0.0.1:1/v1"))
            await model.start()
            with pytest.raises(LinkUnavailable, match="running"):
                await whole(model, request(user("hi", 1)))
            await model.close()

    asyncio.run(story())


@each_model
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>",
        b"220 mail.example ESMTP\r\n",
        b"\x16\x03\x01\x00\x00garbage" * 20,
        b"",
    ],
    ids=["a page", "mail", "noise", "nothing"],
)
def test_a_server_that_is_not_what_it_says_is_named_with_a_remedy(make: Make, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def story() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            model = make(Endpoint(f"http://127.0.0.1:{port}/v1", "m", lambda: "sk-very-secret"))
            await model.start()
            with pytest.raises(LinkError) as caught:
                await whole(model, request(user("hello", 1)))
            assert f"127.0.0.1:{port}" in str(caught.value) and caught.value.hint
            assert "secret" not in str(caught.value) and "hello" not in str(caught.value)
            await model.close()

    asyncio.run(story())


@each_model
def test_tls_to_a_server_that_speaks_none_is_an_error_of_the_link(make: Make) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    async def story() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            model = make(Endpoint(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "m"))
            await model.start()
            with pytest.raises(LinkError) as caught:
                await whole(model, request(user("hello", 1)))
            assert "127.0.0.1" in str(caught.value) and caught.value.hint
            await model.close()

    asyncio.run(story())


def test_an_old_socket_is_left_before_the_cap_strikes() -> None:
    async def story() -> None:
        provider = Fake()
        plan = replace(WS, rotate_s=0.0, store=True)
        async with talking(provider, lambda endpoint: ResponsesModel(endpoint, plan)) as model:
            first = text_of(await whole(model, request(user("one", 1))))
            await whole(model, request(user("one", 1), said(first, 2), user("two", 3)))
            assert provider.upgrades == 2
            assert provider.requests[1].body["previous_response_id"], (
                "a stored chain goes on on the new socket"
            )

    asyncio.run(story())


def test_a_full_node_waits_for_a_lane_and_then_says_so() -> None:
    async def story() -> None:
        held = asyncio.Event()
        provider = Fake(lambda body: Reply("late", wait=held))
        plan = replace(WS, sockets_max=1, wait_s=0.2)
        async with talking(provider, lambda endpoint: ResponsesModel(endpoint, plan)) as model:
            first = asyncio.create_task(whole(model, request(user("one", 1))))
            while not provider.requests:
                await asyncio.sleep(0)
            with pytest.raises(LinkUnavailable, match="no free lane"):
                await whole(model, request(user("two", 1), session="sess_two"))
            held.set()
            assert text_of(await first) == "late"

    asyncio.run(story())


def test_a_url_that_is_none_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="llm_url"):
        Endpoint("localhost:11434")
    assert Endpoint("wss://h/v1/responses").at("responses", websocket=True) == "wss://h/v1/responses"
    assert Endpoint("https://h/v1").at("responses", websocket=True) == "wss://h/v1/responses"
    assert ask("x").items
