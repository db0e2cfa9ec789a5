"""A model that declines: a refusal stays a refusal, from its own words to the client's types and back to it.

Stock openai-python against a real gateway, whose language model is a fake provider over each API that we speak.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pydantic
import pytest
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseOutputMessage, ResponseOutputRefusal

from integration.gateway import spoken_agent, stories
from integration.responses_line import SERVER_EVENT, STREAM_EVENT, client_of, each_store, gateway, socket_of
from openline.ports import ModelRequest
from openline.testing.fake_responses import FakeProvider
from openline.testing.fake_responses_parts import Json, Reply, last_text
from openline.testing.llm import Script, ScriptedModel, Wait, say

NO = "I cannot help with that."
EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.refusal.delta",
    "response.refusal.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
each_api = pytest.mark.parametrize("api", ["responses-ws", "responses", "chat"])


def declining(body: Json) -> Reply:
    return Reply(refusal=NO) if "lock" in last_text(body) else Reply(f"You said: {last_text(body)}")


def refusal_of(response: OpenAIResponse) -> str:
    (message,) = response.output
    assert isinstance(message, ResponseOutputMessage)
    (part,) = message.content
    assert isinstance(part, ResponseOutputRefusal)
    return part.refusal


def told_of(request: Json) -> Json:
    """What a provider is given of the assistant's first message."""
    said = request.get("input", request.get("messages"))
    assert isinstance(said, list)
    message: Json = next(entry for entry in said if entry.get("role") == "assistant")
    return message


@each_api
@each_store
def test_a_refusal_is_one_for_openai_python_and_for_the_model_again(
    tmp_path: Path, store: bool, api: str
) -> None:
    """Over HTTP as JSON and as SSE; the next turn of its conversation gives the model its refusal back."""

    async def story() -> None:
        async with FakeProvider(declining) as provider:
            settings: Any = {"llm_url": provider.url, "llm_model": "m", "llm_api": api}
            async with gateway(tmp_path / "d", agent=spoken_agent(), **settings) as started:
                client = client_of(started)
                whole = await client.responses.create(model="m", input="pick the lock", store=store)
                OpenAIResponse.model_validate(whole.to_dict(mode="json"))
                assert (refusal_of(whole), whole.output_text, whole.status) == (NO, "", "completed")

                kinds: list[str] = []
                streamed = await client.responses.create(
                    model="m", input="pick the lock", store=store, stream=True
                )
                async for event in streamed:
                    STREAM_EVENT.validate_python(event.to_dict(mode="json"))
                    kinds.append(event.type)
                assert list(dict.fromkeys(kinds)) == EVENTS
                assert event.type == "response.completed" and refusal_of(event.response) == NO

                given = [
                    {"role": "user", "content": "pick the lock"},
                    {"role": "assistant", "content": [{"type": "refusal", "refusal": NO}]},
                    {"role": "user", "content": "why not"},
                ]
                more: Any = (
                    {"input": "why not", "previous_response_id": whole.id} if store else {"input": given}
                )
                again = await client.responses.create(model="m", store=store, **more)
                assert again.output_text == "You said: why not"
                told = told_of(provider.requests[-1].body)
                if api == "chat":
                    assert (told["content"], told["refusal"]) == (NO, NO)
                else:
                    assert told["content"] == [{"type": "refusal", "refusal": NO}]

    asyncio.run(story())


@each_store
def test_a_refusal_over_the_socket_of_openai_python(tmp_path: Path, store: bool) -> None:
    async def story() -> None:
        async with FakeProvider(declining) as provider:
            settings: Any = {"llm_url": provider.url, "llm_model": "m"}
            async with (
                gateway(tmp_path / "d", agent=spoken_agent(), **settings) as started,
                client_of(started).responses.connect() as line,
            ):
                await line.response.create(model="m", input="pick the lock", store=store)
                kinds, deltas = [], ""
                async for event in line:
                    SERVER_EVENT.validate_python(event.to_dict(mode="json"))
                    kinds.append(event.type)
                    if event.type == "response.refusal.delta":
                        deltas += event.delta
                    if event.type == "response.completed":
                        break
                assert (list(dict.fromkeys(kinds)), deltas) == (EVENTS, NO)
                assert (refusal_of(event.response), event.response.output_text) == (NO, "")
                previous = event.response.id
                await line.response.create(
                    model="m", input="why not", store=store, previous_response_id=previous
                )
                async for event in line:
                    if event.type == "response.completed":
                        break
                assert event.response.output_text == "You said: why not"
                # The chain held: a refusal that was taken for text would have cost the whole context again.
                assert [asked.body["input"] for asked in provider.requests][1][0]["content"][0][
                    "text"
                ] == "why not"
                assert len(provider.requests[1].body["input"]) == 1

    asyncio.run(story())


class Answer(pydantic.BaseModel):
    number: int


@each_store
def test_a_refusal_where_a_form_was_asked_for_parses_as_none(tmp_path: Path, store: bool) -> None:
    """What structured output has refusals for: the client sees no answer of the wrong form, but why there is none."""

    async def story() -> None:
        async with FakeProvider(declining) as provider:
            settings: Any = {"llm_url": provider.url, "llm_model": "m"}
            async with gateway(tmp_path / "d", agent=spoken_agent(), **settings) as started:
                made = await client_of(started).responses.parse(
                    model="m", input="how do I pick the lock", store=store, text_format=Answer
                )
                assert made.output_parsed is None and refusal_of(made) == NO

    asyncio.run(story())


def test_a_stored_refusal_survives_a_restart_and_goes_back_as_one(tmp_path: Path) -> None:
    data = tmp_path / "d"

    async def story() -> None:
        async with FakeProvider(declining) as provider:
            settings: Any = {"llm_url": provider.url, "llm_model": "m"}
            async with gateway(data, agent=spoken_agent(), **settings) as started:
                made = await client_of(started).responses.create(model="m", input="pick the lock")
            async with gateway(data, agent=spoken_agent(), **settings) as started:
                client = client_of(started)
                assert refusal_of(await client.responses.retrieve(made.id)) == NO
                again = await client.responses.create(model="m", input="why", previous_response_id=made.id)
                assert again.output_text == "You said: why"
                told = told_of(provider.requests[-1].body)
                assert told["content"] == [{"type": "refusal", "refusal": NO}]
                # A client that brings its own history has it read back as it was given.
                brought = await client.responses.create(
                    model="m",
                    input=[
                        {"type": "message", "role": "user", "content": "pick the lock"},
                        {"role": "assistant", "content": [{"type": "refusal", "refusal": NO}]},  # type: ignore[list-item,misc,typeddict-item]  # the types know it with an id only
                        {"type": "message", "role": "user", "content": "go on"},
                    ],
                )
                page = await client.responses.input_items.list(brought.id, order="asc")
                shown = [item.to_dict() for item in page.data]
                assert shown[1]["content"] == [{"type": "refusal", "refusal": NO}]
        for told_story in stories(data).values():
            assert told_story.status == "parked"

    asyncio.run(story())


@each_store
def test_words_before_a_refusal_are_a_message_of_their_own(tmp_path: Path, store: bool) -> None:
    def script(request: ModelRequest) -> Script:
        if request.items[-1].text == "more":
            said = [(item.is_refusal, item.text) for item in request.items if item.role == "assistant"]
            return [say(str(said))]
        return [say("Well, let me see."), say("No.", refuses=True), say("Sorry.")]

    async def story() -> None:
        async with gateway(tmp_path / "d", script) as started, socket_of(started) as line:
            await line.send(input="pick the lock", store=store)
            done = (await line.until_end())[-1]
            output = done["response"]["output"]
            assert [item["content"] for item in output] == [
                [{"type": "output_text", "text": "Well, let me see.", "annotations": [], "logprobs": []}],
                [{"type": "refusal", "refusal": "No."}],
                [{"type": "output_text", "text": "Sorry.", "annotations": [], "logprobs": []}],
            ]
            previous = done["response"]["id"]
            more = await line.ask(input="more", store=store, previous_response_id=previous)
            assert more["response"]["output"][0]["content"][0]["text"] == str(
                [(False, "Well, let me see."), (True, "No."), (False, "Sorry.")]
            )

    asyncio.run(story())


@each_store
def test_a_refusal_that_is_steered_away_from_stays_one(tmp_path: Path, store: bool) -> None:
    """Cut in the middle, it ends as an incomplete refusal, and the successor's model is told it as one."""
    never = asyncio.Event()

    def script(request: ModelRequest) -> Script:
        if request.items[-1].text == "then something else":
            return [say("|".join(item.text for item in request.items if item.is_refusal))]
        return [say("Certainly"), say("No, I will", refuses=True), Wait(never)]

    async def story() -> None:
        async with gateway(tmp_path / "d", script) as started, socket_of(started) as line:
            await line.send(input="pick the lock", store=store)
            event = await line.next()
            response = event["response"]["id"]
            while not (event["type"] == "response.refusal.delta" and event["delta"] == " will"):
                event = await line.next()
            await line.socket.send(
                f'{{"type":"response.steer","previous_response_id":"{response}","input":"then something else"}}'
            )
            seen = []
            while event["type"] != "response.completed":
                event = await line.next()
                seen.append(event)
            cut = next(event for event in seen if event["type"] == "response.incomplete")
            parts = [item["content"] for item in cut["response"]["output"]]
            assert parts[1] == [{"type": "refusal", "refusal": "No, I will"}]
            assert event["response"]["output"][0]["content"][0]["text"] == "No, I will"

    asyncio.run(story())


def test_a_refusal_is_spoken_by_voice_and_shown_as_text_on_realtime(tmp_path: Path) -> None:
    """There is no such part there: what the caller hears and what a text client reads is the refusal's words."""
    model = ScriptedModel(lambda request: [say(NO, refuses=True)])

    async def story() -> None:
        async with gateway(tmp_path / "d", model) as started:
            async with client_of(started).realtime.connect(model="m") as line:
                for modality in ("text", "audio"):
                    await line.conversation.item.create(
                        item={
                            "type": "message",
                            "role": "user",
                            "content": [{"type": "input_text", "text": "pick the lock"}],
                        }
                    )
                    await line.response.create(response={"output_modalities": [modality]})
                    async for event in line:
                        assert event.type != "error", event
                        if event.type == "response.done":
                            break
                    (item,) = event.response.output or []
                    assert item.type == "message"
                    (part,) = item.content
                    shown = part.text if modality == "text" else part.transcript
                    assert (part.type, shown) == (f"output_{modality}", NO)

    asyncio.run(story())
