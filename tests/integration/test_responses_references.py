"""``item_reference``: a client names what was stored instead of sending it again, as Vercel's AI SDK does by default."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from integration.gateway import spoken_agent
from integration.responses_line import TOOL, client_of, each_store, echo, gateway, socket_of, text_of
from openline.core.model import Part
from openline.errors import ClientProtocolError
from openline.ports import ModelRequest
from openline.server.responses_items import CHAINS_MAX, References
from openline.server.responses_makers import Held, Running, StoredResponses
from openline.testing.fake_responses import FakeProvider
from openline.testing.fake_responses_parts import Json, Reply, last_text
from openline.testing.llm import Script, ScriptedModel, Think, say
from openline.types import ResponseId, SessionId
from openline.wire.responses_input import Reference
from openline.wire.responses_server import Create


def ref(item_id: str) -> Json:
    return {"type": "item_reference", "id": item_id}


def told(request: ModelRequest) -> Script:
    """Says what it was given, kind by kind."""
    if request.tools:
        return echo(request)
    return [say(json.dumps([(item.type, item.role, item.text or item.output) for item in request.items]))]


@each_store
def test_a_client_goes_on_from_references_to_what_was_stored(tmp_path: Path, store: bool) -> None:
    """Items in and out, of other chains too, over HTTP and the socket, also after a restart."""
    data = tmp_path / "d"

    async def story() -> None:
        async with gateway(data, told) as started:
            client = client_of(started)
            one = await client.responses.create(model="m", input="how many hinges", tools=[TOOL])
            (asked,) = (await client.responses.input_items.list(one.id)).data
            ids = [asked.id, *(item.id for item in one.output)]
            assert len(set(ids)) == 4 and all(ids)
        async with gateway(data, told) as started:
            outputs: Any = [
                {"type": "function_call_output", "call_id": call, "output": "12"}
                for call in ("call_1", "call_2")
            ]
            given: Any = [*map(ref, ids), *outputs]
            expected = [
                ["message", "user", "how many hinges"],
                ["message", "assistant", "Let me see."],
                ["function_call", "", ""],
                ["function_call", "", ""],
                ["function_call_output", "", "12"],
                ["function_call_output", "", "12"],
            ]
            again = await client_of(started).responses.create(model="m", input=given, store=store)
            assert json.loads(again.output_text) == expected
            async with socket_of(started) as line:
                done = await line.ask(input=[{"id": ids[0]}, ref(ids[1]), *given[2:]], store=store)
                assert json.loads(text_of(done)) == expected, "the type may be left out"

    asyncio.run(story())


def test_what_the_chain_has_already_is_not_put_in_twice(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d", told) as started:
            client = client_of(started)
            one = await client.responses.create(model="m", input="one")
            two = await client.responses.create(model="m", input="two", previous_response_id=one.id)
            said = [item.id for item in two.output]
            given: Any = [*map(ref, said), {"role": "user", "content": "more"}]
            three = await client.responses.create(model="m", input=given, previous_response_id=two.id)
            assert len(json.loads(three.output_text)) == 5
            # A fork from the first has what the second said only by its reference.
            fork = await client.responses.create(model="m", input=given, previous_response_id=one.id)
            texts = [text for _, _, text in json.loads(fork.output_text)]
            assert (len(texts), texts[2]) == (4, two.output_text)
            again = await client.responses.create(model="m", input=given, previous_response_id=fork.id)
            assert len(json.loads(again.output_text)) == 4 + 1 + 2, (
                "its copy in the fork is an item of its own"
            )

    asyncio.run(story())


def test_reasoning_is_referred_to_by_its_own_id_and_goes_with_its_call_once(tmp_path: Path) -> None:
    """The AI SDK's way with a store: ``rs_…`` and ``fc_…`` by reference, then the call's output."""

    def reply(body: Json) -> Reply:
        if last_text(body) == "12":
            return Reply("Twelve.")
        return Reply(calls=(("stock", "{}"),), summary=("Hm.",), reasoning="gAAA")

    data = tmp_path / "d"

    async def story() -> None:
        async with FakeProvider(reply) as provider:
            settings: Any = {"llm_url": provider.url, "llm_model": "m", "llm_api": "responses"}
            asked: Any = {"model": "m", "include": ["reasoning.encrypted_content"]}
            async with gateway(data, agent=spoken_agent(), **settings) as started:
                made = await client_of(started).responses.create(input="how many", tools=[TOOL], **asked)
            thought, call = made.output
            assert call.type == "function_call"
            async with gateway(data, agent=spoken_agent(), **settings) as started:
                output = {"type": "function_call_output", "call_id": call.call_id, "output": "12"}
                user = {"role": "user", "content": "how many"}
                for refs in ([thought.id, call.id], [call.id], [thought.id, thought.id, call.id]):
                    given: Any = [user, *map(ref, map(str, refs)), output]
                    again = await client_of(started).responses.create(input=given, **asked)
                    assert again.output_text == "Twelve."
                    sent = provider.requests[-1].body["input"]
                    assert [item["type"] for item in sent] == [
                        "message", "reasoning", "function_call", "function_call_output",
                    ]  # fmt: skip
                    assert (sent[1]["id"], sent[1]["encrypted_content"]) == (thought.id, "gAAA")

    asyncio.run(story())


@each_store
def test_what_is_not_there_is_a_404_in_the_words_of_the_service(tmp_path: Path, store: bool) -> None:
    """Unknown, of a passing response, of a forgotten one, of a session that was deleted."""

    async def story() -> None:
        async with gateway(tmp_path / "d", told) as started:
            client = client_of(started)
            passing = await client.responses.create(model="m", input="one", store=False)
            forgotten = await client.responses.create(model="m", input="one")
            gone = await client.responses.create(model="m", input="one")
            await client.responses.delete(forgotten.id)
            session = SessionId("sess_" + gone.id.split("_")[1])
            while session in started.gateway.drivers:
                await asyncio.sleep(0.02)
            await started.gateway.delete(session, tenant="default")
            never = ["rs_none", "msg_none", "msg_none_1", "x", gone.id]
            for item_id in [*never, *(str(made.output[0].id) for made in (passing, forgotten, gone))]:
                with pytest.raises(openai.NotFoundError) as refused:
                    await client.responses.create(model="m", input=[ref(item_id)], store=store)  # type: ignore[list-item]  # as JSON
                error: Any = refused.value.body
                assert error["message"].startswith(f"Item with id '{item_id}' not found.")
                assert (error["type"], error["param"]) == ("invalid_request_error", "input")
            async with socket_of(started) as line:
                frame = await line.ask(input=[ref("rs_none")], store=store)
                assert (frame["type"], frame["status"]) == ("error", 404)
                assert frame["error"]["code"] == "item_not_found"
                kept = await line.ask(input="hello", store=store)
                assert kept["type"] == "response.completed", "the socket goes on"

    asyncio.run(story())


async def anything(session: SessionId, response: ResponseId) -> bool:
    return True


def test_an_item_of_another_tenant_is_not_found(tmp_path: Path) -> None:
    script = [Think(("Hm.",), id="rs_mine"), say("Twelve.")]

    async def story() -> None:
        async with gateway(tmp_path / "d", ScriptedModel(lambda request: script)) as started:
            one = await client_of(started).responses.create(model="m", input="one")
            for item_id in ("rs_mine", str(one.output[1].id)):
                asked = Create((), given=(Reference(item_id),))
                found = await StoredResponses(started.gateway, "default").resolve(asked, None)
                assert not found.given
                with pytest.raises(ClientProtocolError, match="not found"):
                    await StoredResponses(started.gateway, "other").resolve(asked, None)
                # Not even with a response of that id: the log of another is not read.
                with pytest.raises(ClientProtocolError, match="not found"):
                    await References(started.gateway, "other", anything).resolve(asked, frozenset())

    asyncio.run(story())


def test_a_reference_that_is_refused_does_not_cost_the_chain(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d", told) as started, socket_of(started) as line:
            one = await line.ask(input="one", store=False)
            previous = one["response"]["id"]
            frame = await line.ask(input=[ref("rs_none")], store=False, previous_response_id=previous)
            assert frame["type"] == "error"
            more = await line.ask(input="two", store=False, previous_response_id=previous)
            assert len(json.loads(text_of(more))) == 3

    asyncio.run(story())


def test_of_a_chain_that_a_voice_client_took_over_what_belongs_to_a_response_is_found(tmp_path: Path) -> None:
    """As text, whatever it was there. What the voice client and its agent said to each other is the session's own."""

    async def story() -> None:
        async with gateway(tmp_path / "d", told) as started:
            client = client_of(started)
            one = await client.responses.create(model="m", input="one")
            session = SessionId("sess_" + one.id.split("_")[1])
            async with client.realtime.connect(model="m", extra_query={"session_id": session}) as line:
                await line.response.create(response={"output_modalities": ["audio"]})
                async for event in line:
                    if event.type == "response.done":
                        break
                spoken = (event.response.output or [])[0]
                content: Any = [{"type": "input_audio", "transcript": "two please"}]
                await line.conversation.item.create(
                    item={"id": "mine", "type": "message", "role": "user", "content": content}
                )
                async for event in line:
                    if event.type == "conversation.item.done":
                        break
            state = (await started.gateway.load(session)).session.state
            held = Held("resp_x", session, session=session, last="mine", seq=state.seq)
            asked = Create((), given=(Reference(f"msg_{session[5:]}_mine"),))
            chains = StoredResponses(started.gateway, "default")
            with pytest.raises(ClientProtocolError, match="not found"):
                await chains.resolve(asked, None)
            await chains.make(Create(()), held, lambda event: None, Running())
            found = await chains.resolve(asked, None)
            assert found.items[0].content == (Part("input_text", "two please"),)
            chains.close()
            tail = str(spoken.id).removeprefix("item_")
            with pytest.raises(openai.NotFoundError):
                own: Any = [ref(f"msg_{session.removeprefix('sess_')}_{tail}")]
                await client.responses.create(model="m", input=own)

    asyncio.run(story())


def test_references_to_more_logs_than_one_request_may_read_are_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started:
            client = client_of(started)
            made = [await client.responses.create(model="m", input="one") for _ in range(CHAINS_MAX + 1)]
            given: Any = [ref(str(one.output[0].id)) for one in made]
            with pytest.raises(openai.BadRequestError, match=f"at most {CHAINS_MAX} chains"):
                await client.responses.create(model="m", input=given)
            fine = await client.responses.create(model="m", input=given[:-1] + given[:3])
            assert fine.output_text.startswith(f"{CHAINS_MAX + 3}: ")

    asyncio.run(story())
