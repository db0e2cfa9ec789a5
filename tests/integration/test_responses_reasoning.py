"""What a model thinks before it speaks: shown to the client, kept with what it led to, given back to the model.

Stock openai-python against a real gateway, whose language model is a fake provider that takes its own reasoning back
only unchanged, under its own id and in front of what it led to.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseReasoningItem

from integration.gateway import spoken_agent, stories
from integration.responses_line import (
    SERVER_EVENT,
    STREAM_EVENT,
    TOOL,
    client_of,
    each_store,
    gateway,
    socket_of,
    text_of,
)
from openline.ports import ModelRequest
from openline.testing.fake_responses import FakeProvider
from openline.testing.fake_responses_parts import Fault, Json, Reply, last_text
from openline.testing.llm import Call, Script, ScriptedModel, Think, say

SUMMARY = ("They want to know a stock.", "I look it up.")
SEALED: Any = ["reasoning.encrypted_content"]
EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_summary_part.done",
    "response.output_item.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.completed",
]
each_api = pytest.mark.parametrize("api", ["responses-ws", "responses"])


def thinking(body: Json) -> Reply:
    """Thinks and calls a tool; of the tool's result it only speaks."""
    if body.get("tools") and "function_call_output" not in [item.get("type") for item in body["input"]]:
        return Reply(calls=(("stock", '{"part": "hinge"}'),), summary=SUMMARY, reasoning="gAAA")
    return Reply(f"You said: {last_text(body)}")


def settings_for(provider: FakeProvider, api: str = "auto") -> Any:
    return {"llm_url": provider.url, "llm_model": "m", "llm_api": api}


def thought_of(response: OpenAIResponse) -> ResponseReasoningItem:
    first = response.output[0]
    assert isinstance(first, ResponseReasoningItem)
    return first


def kinds_of(request: Json) -> list[str]:
    return [item.get("type", "message") for item in request["input"]]


@each_api
def test_openai_python_without_a_store_gives_the_model_its_thoughts_back(tmp_path: Path, api: str) -> None:
    """The loop of every client with ``store=False``: what came is sent back whole, sealed thoughts and all."""
    data = tmp_path / "d"

    async def story() -> None:
        async with FakeProvider(thinking) as provider:
            async with gateway(data, agent=spoken_agent(), **settings_for(provider, api)) as started:
                client = client_of(started)
                asked: Any = {"model": "m", "tools": [TOOL], "store": False, "include": SEALED}
                given: Any = [{"role": "user", "content": "how many hinges"}]
                made = await client.responses.create(input=given, **asked)
                OpenAIResponse.model_validate(made.to_dict(mode="json"))
                thought, call = made.output
                assert isinstance(thought, ResponseReasoningItem) and call.type == "function_call"
                assert tuple(part.text for part in thought.summary) == SUMMARY
                assert thought.encrypted_content == "gAAA" and provider.sealed[thought.id] == "gAAA"
                assert made.usage is not None and made.usage.output_tokens_details.reasoning_tokens > 0
                given += [item.to_dict() for item in made.output]
                given += [{"type": "function_call_output", "call_id": call.call_id, "output": "12"}]
                again = await client.responses.create(input=given, **asked)
                assert again.output_text == "You said: 12"
                sent = provider.requests[-1].body
                assert kinds_of(sent) == ["message", "reasoning", "function_call", "function_call_output"]
                assert sent["input"][1] == thought.to_dict()
                assert sent["include"] == SEALED

    asyncio.run(story())
    assert not any(secret in file.read_bytes() for file in data.rglob("*") if file.is_file()
                   for secret in (b"gAAA", b"look it up")), "what was not to be stored is in no file"  # fmt: skip


@each_api
@each_store
def test_thoughts_are_streamed_in_the_events_of_the_protocol(tmp_path: Path, store: bool, api: str) -> None:
    async def story() -> None:
        async with FakeProvider(thinking) as provider:
            async with gateway(
                tmp_path / "d", agent=spoken_agent(), **settings_for(provider, api)
            ) as started:
                client = client_of(started)
                events = []
                async for event in await client.responses.create(
                    model="m", input="how many", tools=[TOOL], store=store, stream=True
                ):
                    STREAM_EVENT.validate_python(event.to_dict(mode="json"))
                    events.append(event)
                kinds = [event.type for event in events]
                assert list(dict.fromkeys(kinds)) == EVENTS
                deltas = [e for e in events if e.type == "response.reasoning_summary_text.delta"]
                texts = ["".join(e.delta for e in deltas if e.summary_index == part) for part in (0, 1)]
                assert tuple(texts) == SUMMARY and len(deltas) > 2, "as it was thought, not whole"
                last = events[-1]
                assert last.type == "response.completed"
                thought = thought_of(last.response)
                assert thought.encrypted_content is None, "nobody asked for it"
                shown = [e.item for e in events if e.type == "response.output_item.done"]
                assert [item.to_dict() for item in shown] == [item.to_dict() for item in last.response.output]
                indexes = [e.output_index for e in events if hasattr(e, "output_index")]
                assert indexes == sorted(indexes) and set(indexes) == {0, 1}
                # The client's own accumulator bears them too.
                async with client.responses.stream(
                    model="m", input="how many", tools=[TOOL], store=store
                ) as flow:
                    final = await flow.get_final_response()
                assert [item.type for item in final.output] == ["reasoning", "function_call"]

    asyncio.run(story())


@each_store
def test_thoughts_over_the_socket_of_openai_python_and_its_chain(tmp_path: Path, store: bool) -> None:
    async def story() -> None:
        async with FakeProvider(thinking) as provider:
            async with (
                gateway(tmp_path / "d", agent=spoken_agent(), **settings_for(provider)) as started,
                client_of(started).responses.connect() as line,
            ):
                asked: Any = {"model": "m", "tools": [TOOL], "store": store, "include": SEALED}
                await line.response.create(input="how many hinges", **asked)
                async for event in line:
                    SERVER_EVENT.validate_python(event.to_dict(mode="json"))
                    if event.type == "response.completed":
                        break
                assert thought_of(event.response).encrypted_content == "gAAA"
                call = event.response.output[1]
                assert call.type == "function_call"
                output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "12"}
                previous = event.response.id
                await line.response.create(input=[output], previous_response_id=previous, **asked)
                async for event in line:
                    if event.type == "response.completed":
                        break
                assert event.response.output_text == "You said: 12"
                # Whether we were told what it thought makes no difference to what the provider holds.
                assert kinds_of(provider.requests[-1].body) == ["function_call_output"]
                assert provider.requests[-1].body["previous_response_id"]

    asyncio.run(story())


@each_api
@each_store
def test_thoughts_before_words_are_no_words_of_the_next_turn(tmp_path: Path, store: bool, api: str) -> None:
    """On the socket the provider's own chain goes on; over HTTP all of it is sent, with the answer as it was said."""

    def reply(body: Json) -> Reply:
        return Reply(f"You said: {last_text(body)}", summary=SUMMARY, reasoning="gAAA")

    async def story() -> None:
        async with FakeProvider(reply) as provider:
            async with (
                gateway(tmp_path / "d", agent=spoken_agent(), **settings_for(provider, api)) as started,
                socket_of(started) as line,
            ):
                first = (await line.ask(input="hinges", store=store))["response"]
                assert [item["type"] for item in first["output"]] == ["reasoning", "message"]
                more = await line.ask(input="bolts", store=store, previous_response_id=first["id"])
                assert text_of(more) == "You said: bolts"
                sent = provider.requests[-1].body
                if api == "responses-ws":
                    assert sent["previous_response_id"] and kinds_of(sent) == ["message"]
                else:
                    assert kinds_of(sent) == ["message"] * 3, "nobody asked for thoughts that can be read"
                    said = [{"type": "output_text", "text": "You said: hinges"}]
                    assert sent["input"][1]["content"] == said

    asyncio.run(story())


def test_what_led_to_a_stored_item_is_stored_with_it_and_given_back_after_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "d"

    async def story() -> None:
        async with FakeProvider(thinking) as provider:
            asked: Any = {"model": "m", "tools": [TOOL], "include": SEALED}
            async with gateway(data, agent=spoken_agent(), **settings_for(provider)) as started:
                made = await client_of(started).responses.create(input="how many hinges", **asked)
            more = {**settings_for(provider), "llm_reasoning": "on"}
            async with gateway(data, agent=spoken_agent(), **more) as started:
                client = client_of(started)
                read = await client.responses.retrieve(made.id)
                assert [item.to_dict() for item in read.output] == [item.to_dict() for item in made.output]
                quiet = await client.responses.create(model="m", input="how many hinges", tools=[TOOL])
                for included, content in ((SEALED, "gAAA"), ([], None)):
                    read = await client.responses.retrieve(quiet.id, include=included)
                    assert thought_of(read).encrypted_content == content
                call = made.output[1]
                assert call.type == "function_call"
                output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "12"}
                again = await client.responses.create(input=[output], previous_response_id=made.id, **asked)
                assert again.output_text == "You said: 12"
                sent = provider.requests[-1].body
                assert kinds_of(sent) == ["message", "reasoning", "function_call", "function_call_output"]
                assert sent["input"][1]["encrypted_content"] == "gAAA"
        assert [told.status for told in stories(data).values()] == ["parked"] * 2

    asyncio.run(story())


def test_history_with_thoughts_is_stored_with_them_and_shown_again(tmp_path: Path) -> None:
    """A client with a store that sends its own history, as the Agents SDK does by default."""

    async def story() -> None:
        async with FakeProvider(thinking) as provider:
            async with gateway(tmp_path / "d", agent=spoken_agent(), **settings_for(provider)) as started:
                client = client_of(started)
                asked: Any = {"model": "m", "tools": [TOOL], "include": SEALED}
                given: Any = [{"role": "user", "content": "how many hinges"}]
                made = await client.responses.create(input=given, **asked)
                given += [item.to_dict() for item in made.output]
                given += [{"type": "function_call_output", "call_id": given[-1]["call_id"], "output": "12"}]
                again = await client.responses.create(input=given, **asked)
                assert again.output_text == "You said: 12"
                assert kinds_of(provider.requests[-1].body)[1] == "reasoning"
                page = await client.responses.input_items.list(again.id, order="asc")
                shown = [item.type for item in page.data]
                assert shown == ["message", "reasoning", "function_call", "function_call_output"]
                kept = page.data[1].to_dict()
                assert "encrypted_content" not in kept
                page = await client.responses.input_items.list(again.id, order="asc", include=SEALED)
                assert page.data[1].to_dict() == {**kept, "encrypted_content": "gAAA"}

    asyncio.run(story())


@pytest.mark.parametrize("api", ["responses-ws", "responses"])
@each_store
def test_thoughts_that_the_model_cannot_read_are_left_out(tmp_path: Path, store: bool, api: str) -> None:
    """Of another provider or account, sealed elsewhere: the conversation goes on without them."""

    async def story() -> None:
        async with FakeProvider(thinking) as provider:
            async with gateway(
                tmp_path / "d", agent=spoken_agent(), **settings_for(provider, api)
            ) as started:
                strange: Any = {"type": "reasoning", "id": "rs_other", "encrypted_content": "zzz"}
                made = await client_of(started).responses.create(
                    model="m",
                    store=store,
                    input=[
                        {"role": "user", "content": "how many"},
                        {**strange, "summary": [{"type": "summary_text", "text": "Well."}]},
                        {"role": "assistant", "content": "Of what?"},
                        {"role": "user", "content": "hinges"},
                    ],
                )
                assert made.output_text == "You said: hinges"
                asked = [kinds_of(request.body) for request in provider.requests]
                assert asked == [["message", "reasoning", "message", "message"], ["message"] * 3]
                # A summary alone is for people: it is not even tried.
                del strange["encrypted_content"]
                await client_of(started).responses.create(
                    model="m",
                    store=store,
                    input=[{**strange, "summary": []}, {"role": "assistant", "content": "Of what?"},
                           {"role": "user", "content": "hinges"}],
                )  # fmt: skip
                assert kinds_of(provider.requests[-1].body) == ["message", "message"]

    asyncio.run(story())


@each_store
def test_models_that_have_no_thoughts_are_given_none(tmp_path: Path, store: bool) -> None:
    async def story() -> None:
        async with FakeProvider(lambda body: Reply("Twelve.")) as provider:
            settings = settings_for(provider, "chat")
            async with gateway(tmp_path / "d", agent=spoken_agent(), **settings) as started:
                given: Any = [
                    {"role": "user", "content": "how many"},
                    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
                    {
                        "type": "function_call",
                        "id": "fc_1",
                        "call_id": "c1",
                        "name": "stock",
                        "arguments": "{}",
                    },
                    {"type": "function_call_output", "call_id": "c1", "output": "12"},
                ]
                made = await client_of(started).responses.create(
                    model="m", input=given, store=store, include=SEALED
                )
                assert made.output_text == "Twelve."
                body = provider.requests[-1].body
                assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool"]
                assert "include" not in body
        async with gateway(tmp_path / "e", agent=spoken_agent()) as started:
            made = await client_of(started).responses.create(model="m", input=given, store=store)
            assert made.status == "completed", "the embedded one has no use for them"

    asyncio.run(story())


@each_store
def test_open_thoughts_are_shown_as_they_are_and_go_back_as_they_are(tmp_path: Path, store: bool) -> None:
    """Models that show the thoughts themselves (``reasoning_text``) seal nothing."""

    def reply(body: Json) -> Reply:
        if last_text(body) == "why":
            return Reply("Because.")
        return Reply("Twelve.", thoughts="Hinges, twelve of them.")

    async def story() -> None:
        async with FakeProvider(reply) as provider:
            async with (
                gateway(
                    tmp_path / "d", agent=spoken_agent(), **settings_for(provider, "responses")
                ) as started,
                socket_of(started) as line,
            ):
                await line.send(input="how many hinges", store=store)
                events = await line.until_end()
                kinds = [event["type"] for event in events]
                assert kinds.count("response.reasoning_text.delta") == 4
                done = next(e for e in events if e["type"] == "response.reasoning_text.done")
                assert (done["text"], done["output_index"], done["content_index"]) == (
                    "Hinges, twelve of them.", 0, 0,
                )  # fmt: skip
                response = events[-1]["response"]
                assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
                more = await line.ask(input="why", store=store, previous_response_id=response["id"])
                assert more["response"]["output"][0]["content"][0]["text"] == "Because."
                assert kinds_of(provider.requests[-1].body) == ["message", "reasoning", "message", "message"]

    asyncio.run(story())


@each_store
def test_a_try_that_is_lost_while_it_thinks_is_made_again(tmp_path: Path, store: bool) -> None:
    """Nothing was said yet. What the lost try thought is shown as unfinished, and forgotten."""

    async def story() -> None:
        async with FakeProvider(thinking) as provider:
            provider.faults.append(Fault("close", after=6, code=1011))
            async with (
                gateway(
                    tmp_path / "d", agent=spoken_agent(), **settings_for(provider, "responses-ws")
                ) as started,
                socket_of(started) as line,
            ):
                await line.send(input="how many", store=store, tools=[TOOL], include=SEALED)
                events = await line.until_end()
                assert events[-1]["type"] == "response.completed"
                lost, kept, call = events[-1]["response"]["output"]
                assert (lost["status"], lost["id"] != kept["id"]) == ("incomplete", True)
                assert kept["encrypted_content"] == "gAAA"
                output = {"type": "function_call_output", "call_id": call["call_id"], "output": "12"}
                previous = events[-1]["response"]["id"]
                provider.faults.append(Fault("not_found"))  # so that the whole is sent
                more = await line.ask(
                    input=[output], previous_response_id=previous, store=store, tools=[TOOL]
                )
                assert text_of(more) == "You said: 12"
                sent = [
                    item["id"] for item in provider.requests[-1].body["input"] if item["type"] == "reasoning"
                ]
                assert sent == [kept["id"]]

    asyncio.run(story())


@each_store
def test_a_model_that_thinks_longer_than_a_caller_would_wait_is_waited_for(
    tmp_path: Path, store: bool
) -> None:
    """The silence budget is of a call: nobody holds a telephone here. The model is asked once, and answers."""

    async def story() -> None:
        async with FakeProvider(thinking, think=lambda new, cached: 1.3) as provider:
            settings = {**settings_for(provider), "silence_budget_ms": 500}
            async with gateway(tmp_path / "d", agent=spoken_agent(), **settings) as started:
                made = await client_of(started).responses.create(model="m", input="hello", store=store)
                assert (made.output_text, len(provider.requests)) == ("You said: hello", 1)

    asyncio.run(story())


@each_store
def test_each_item_has_what_led_to_it_and_the_rest_is_shown_and_forgotten(
    tmp_path: Path, store: bool
) -> None:
    seen: list[list[tuple[str, list[str]]]] = []

    def script(request: ModelRequest) -> Script:
        seen.append(
            [(item.type, [json.loads(text)["id"] for text in item.reasoning]) for item in request.items]
        )
        if len(seen) > 1:
            return [say("Good.")]
        return [
            Think(id="rs_lost", summary=("no",), is_lost=True),
            Think(id="rs_1"),
            Think(id="rs_2", summary=("aha",)),
            say("Let me see."),
            Think(id="rs_3"),
            Call("stock", call_id="c1"),
            Call("stock", call_id="c2"),
            Think(id="rs_4"),
        ]

    async def story() -> None:
        async with gateway(tmp_path / "d", ScriptedModel(script)) as started, socket_of(started) as line:
            await line.send(input="how many", store=store, tools=[TOOL])
            done = (await line.until_end())[-1]["response"]
            shown = [item["id"] if item["type"] == "reasoning" else item["type"] for item in done["output"]]
            whole = ["rs_lost", "rs_1", "rs_2", "message", "rs_3", "function_call", "function_call", "rs_4"]
            # One that led to nothing is never done in a session: it is shown as far as it was told.
            assert shown == whole
            is_unfinished = done["output"][-1].get("status") == "incomplete"
            assert is_unfinished == store, "only what passes is told of its end"
            outputs = [
                {"type": "function_call_output", "call_id": call, "output": "12"} for call in ("c1", "c2")
            ]
            await line.ask(input=outputs, previous_response_id=done["id"], store=store)
            assert seen[-1] == [
                ("message", []),
                ("message", ["rs_1", "rs_2"]),
                ("function_call", ["rs_3"]),
                ("function_call", []),
                ("function_call_output", []),
                ("function_call_output", []),
            ]

    asyncio.run(story())


@pytest.mark.parametrize("far_store", ["off", "on"])
@each_store
def test_thoughts_and_refusals_pass_two_gateways_in_a_row(
    tmp_path: Path, store: bool, far_store: str
) -> None:
    """Under the provider's ids all the way, which its encrypted content is bound to."""

    def reply(body: Json) -> Reply:
        return Reply(refusal="No.") if last_text(body) == "13" else thinking(body)

    async def story() -> None:
        async with FakeProvider(reply) as provider:
            agent = spoken_agent(builtin_tools=False)
            async with gateway(tmp_path / "far", agent=agent, **settings_for(provider)) as far:
                settings: Any = {"llm_url": f"{far.url}/v1", "llm_model": "m", "llm_store": far_store}
                async with gateway(tmp_path / "near", agent=spoken_agent(), **settings) as near:
                    client = client_of(near)
                    asked: Any = {"model": "m", "tools": [TOOL], "store": store, "include": SEALED}
                    given: Any = [{"role": "user", "content": "how many hinges"}]
                    made = await client.responses.create(input=given, **asked)
                    thought, call = made.output
                    assert isinstance(thought, ResponseReasoningItem) and call.type == "function_call"
                    assert provider.sealed[thought.id] == thought.encrypted_content == "gAAA"
                    given += [item.to_dict() for item in made.output]
                    for told, kind in (("12", "output_text"), ("13", "refusal")):
                        output = {"type": "function_call_output", "call_id": call.call_id, "output": told}
                        again = await client.responses.create(input=[*given, output], **asked)
                        sent = provider.requests[-1].body["input"]
                        assert sent[1] == thought.to_dict() and len(sent) == 4
                        assert again.output[-1].to_dict()["content"][0]["type"] == kind  # type: ignore[index]  # it is JSON, and has a content

    asyncio.run(story())


def test_by_voice_and_on_realtime_nobody_is_told_what_was_thought(tmp_path: Path) -> None:
    data = tmp_path / "d"
    model = ScriptedModel(lambda request: [Think(("secret",), "sealed"), say("Hello to you.")])

    async def story() -> None:
        async with gateway(data, model) as started:
            async with client_of(started).realtime.connect(model="m") as line:
                for modality in ("audio", "text"):
                    await line.response.create(response={"output_modalities": [modality]})  # type: ignore[list-item]  # a loop over both
                    async for event in line:
                        assert event.type != "error", event
                        shown = event.to_json()
                        assert "secret" not in shown and "sealed" not in shown
                        if event.type == "response.done":
                            break
                    (item,) = event.response.output or []
                    assert item.type == "message" and len(item.content) == 1
        (told,) = stories(data).values()
        kept = [fact.item.reasoning for fact in told.of("response.output_item.done")]
        assert [len(reasoning) for reasoning in kept] == [0, 1], "what was spoken has no thoughts in the log"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"summary": "text"}, "input[0].summary"),
        ({"summary": [{"type": "other", "text": "x"}]}, "input[0].summary[0].type"),
        ({"summary": [{"type": "summary_text"}]}, "input[0].summary[0].text"),
        ({"content": [{"type": "output_text", "text": "x"}]}, "input[0].content[0].type"),
        ({"encrypted_content": 7}, "input[0].encrypted_content"),
        ({"id": 7}, "input[0].id"),
    ],
)
def test_reasoning_that_is_none_is_named_and_its_text_is_not(
    tmp_path: Path, values: Json, param: str
) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started, socket_of(started) as line:
            told = await line.ask(input=[{"type": "reasoning", "summary": [], **values}], store=False)
            assert (told["type"], told["error"]["param"]) == ("error", param)

    asyncio.run(story())
