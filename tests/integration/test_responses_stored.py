"""Stored chains of ``/v1/responses``: sessions across sockets and restarts, forks by reference, whose they are."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import openai
import pytest
import websockets

from integration.gateway import stories
from integration.responses_line import TOOL, Json, client_of, echo, gateway, socket_of, text_of
from openline import bootstrap
from openline.cli.facts import summary
from openline.cli.source import DataSource
from openline.core.model import SessionConfig
from openline.errors import ClientProtocolError, LinkUnavailable, SessionNotFound
from openline.ports import ModelRequest
from openline.server.responses_makers import StoredResponses
from openline.testing.llm import Fail, Script, say
from openline.types import Seq


def test_a_stored_chain_is_one_session_across_sockets_and_restarts(tmp_path: Path) -> None:
    data = tmp_path / "d"

    async def story() -> None:
        async with gateway(data) as started:
            async with socket_of(started) as line:
                one = (await line.ask(input="one"))["response"]["id"]
            async with socket_of(started) as line:
                two = (await line.ask(input="two", previous_response_id=one))["response"]["id"]
        async with gateway(data) as started:
            three = await client_of(started).responses.create(
                model="m", input="three", previous_response_id=two
            )
            assert three.output_text == "5: three"
            sessions = await started.store.sessions()
            assert len(sessions) == 1
        (story_,) = stories(data).values()
        assert len(story_.of("response.done")) == 3 and story_.status == "parked"
        assert len(story_.of("openline.turn.committed")) == 3

    asyncio.run(story())


def test_a_fork_of_a_stored_chain_is_a_session_of_its_own(tmp_path: Path) -> None:
    data = tmp_path / "d"

    async def story() -> None:
        async with gateway(data) as started, socket_of(started) as line:
            one = (await line.ask(input="one"))["response"]["id"]
            two = await line.ask(input="two", previous_response_id=one)
            fork = await line.ask(input="other", previous_response_id=one)
            assert (text_of(two), text_of(fork)) == ("3: two", "3: other")
            again = await line.ask(input="on", previous_response_id=fork["response"]["id"])
            assert text_of(again) == "5: on"
        turns = [
            [fact.text for fact in told.of("openline.turn.committed")] for told in stories(data).values()
        ]
        assert sorted(turns) == [["one", "two"], ["other", "on"]], "what is inherited is no new turn"

    asyncio.run(story())


def test_a_fork_refers_to_its_parent_and_copies_nothing(tmp_path: Path) -> None:
    """Not one item of the shared prefix is in the fork's log; after a restart it is read where it is."""
    data = tmp_path / "d"

    async def story() -> None:
        async with gateway(data) as started, socket_of(started) as line:
            one = (await line.ask(input="one"))["response"]["id"]
            await line.ask(input="two", previous_response_id=one)
            first = (await line.ask(input="other", previous_response_id=one))["response"]["id"]
            await line.ask(input="on", previous_response_id=first)
            second = (await line.ask(input="deep", previous_response_id=first))["response"]["id"]
        told = {
            str(story_.of("openline.turn.committed")[0].text): name for name, story_ in stories(data).items()
        }
        facts = {text: stories(data)[name].of("openline.session.forked") for text, name in told.items()}
        assert not facts["one"]
        assert [fact.parent for text in ("other", "deep") for fact in facts[text]] == [
            told["one"],
            told["other"],
        ]
        items = stories(data)[told["other"]].of("conversation.item.created")
        assert [item.item.text for item in items] == ["other", "on"]
        reader = bootstrap.read_data(data)
        shown = bootstrap.stored_transcript(reader, told["deep"])
        lines: Any = shown["items"]
        assert [item["content"][0]["text"] for item in lines] == [
            "one", "1: one", "other", "3: other", "deep", "5: deep",
        ]  # fmt: skip
        state: Any = bootstrap.stored_session(reader, told["deep"])
        assert state["forked_from"]["session"] == told["other"]
        reader.close()
        forked = list(DataSource(data).facts(told["deep"]))[1]
        assert summary(forked).startswith(f"from {told['other']} after fact ")
        async with gateway(data) as started:
            third = await client_of(started).responses.create(
                model="m", input="on", previous_response_id=second
            )
            assert third.output_text == "7: on"
            with pytest.raises(ClientProtocolError, match="fork"):
                await started.gateway.delete(told["one"], tenant="default")
            with pytest.raises(SessionNotFound):
                await started.gateway.delete(told["one"], tenant="other")
            with pytest.raises(SessionNotFound):
                await started.gateway.create("other", SessionConfig(), origin=(told["one"], Seq(5)))
            while told["deep"] in started.gateway.drivers:
                await asyncio.sleep(0.02)
            for text in ("deep", "other", "one"):
                await started.gateway.delete(told[text], tenant="default")
            assert not await started.store.sessions()

    asyncio.run(story())


def files_of(data: Path) -> bytes:
    """Every byte in the data directory, the log's WAL too."""
    return b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())


def test_nothing_that_was_not_to_be_stored_is_in_the_log(tmp_path: Path) -> None:
    data = tmp_path / "d"

    async def story() -> None:
        async with gateway(data) as started:
            async with socket_of(started) as line:
                one = await line.ask(input="a xylophone", store=False)
                refused = await line.ask(input="x", previous_response_id=one["response"]["id"], store=True)
                assert refused["error"]["code"] == "previous_response_not_found"
            await client_of(started).responses.create(model="m", input="a xylophone", store=False)
            stored = (await client_of(started).responses.create(model="m", input="open")).id
            async with socket_of(started) as line:
                end = await line.ask(input="a xylophone", store=False, previous_response_id=stored)
                assert text_of(end) == "3: a xylophone"

    asyncio.run(story())
    assert b"open" in files_of(data)
    assert b"xylophone" not in files_of(data)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_asked_what_passes_is_in_no_file(tmp_path: Path, seed: int) -> None:
    """Random requests on two sockets: text, tools, images, forks, warm-ups, steering, cancelling, failures.

    What passes carries one word, what is stored another. Looked for in every file while the gateway runs, when
    the newest pages are in the WAL, and after its end.
    """
    chance, data = random.Random(seed), tmp_path / "d"
    secret, public = b"xylophone", b"marimba"

    def scripts(request: ModelRequest) -> Script:
        last = request.items[-1]
        if "fail" in last.text:
            return [say(f"begun {last.text}"), Fail(LinkUnavailable(last.text))]
        return echo(request)

    def asked(word: str, store: bool, known: list[str]) -> Json:
        text = f"{word} {chance.choice(['fail', 'ask', 'tell', 'x' * 5000])}"
        image = {"type": "input_image", "image_url": f"data:image/png;base64,{word}"}
        content: Any = chance.choice([text, [{"type": "input_text", "text": text}, image]])
        found: Json = {"input": [{"role": "user", "content": content}], "store": store}
        found |= {"instructions": word, "metadata": {word: word}} if chance.random() < 0.5 else {}
        found |= {"tools": [{**TOOL, "description": word}]} if chance.random() < 0.3 else {}
        found |= {"generate": False} if chance.random() < 0.2 else {}
        found |= {"stream_id": chance.choice("abc")} if chance.random() < 0.5 else {}
        found |= {"previous_response_id": chance.choice(known)} if known and chance.random() < 0.5 else {}
        return found

    async def story() -> None:
        async with gateway(data, scripts) as started:
            async with socket_of(started) as one, socket_of(started) as two:
                known: dict[bool, list[str]] = {True: [], False: []}
                for _ in range(25):
                    store = chance.random() < 0.4
                    word = (public if store else secret).decode()
                    # What passes may go on from what is stored; not the other way round.
                    earlier = known[True] if store else known[True] + known[False]
                    end = await chance.choice([one, two]).ask(**asked(word, store, earlier))
                    if end["type"] == "response.completed":
                        known[store].append(end["response"]["id"])
                await started.store.flush()
                assert secret not in files_of(data)
            assert any(path.name.endswith("-wal") for path in data.rglob("*")), "the WAL was looked at"

    asyncio.run(story())
    assert public in files_of(data)
    assert secret not in files_of(data)


def test_a_stored_response_is_read_with_its_input_and_forgotten(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started:
            client = client_of(started)
            image = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"}
            given: Any = [
                {"role": "user", "content": [{"type": "input_text", "text": "one"}, image]},
                {"type": "function_call", "call_id": "c", "name": "stock", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "12"},
                {"role": "assistant", "content": "there are"},
            ]
            one = await client.responses.create(model="m", input=given)
            two = await client.responses.create(model="m", input="two", previous_response_id=one.id)
            kinds = [item.type async for item in client.responses.input_items.list(one.id, order="asc")]
            assert kinds == ["message", "function_call", "function_call_output", "message"]
            newest = await client.responses.input_items.list(one.id, limit=1)
            assert newest.data[0].type == "message" and newest.has_more
            rest = [item.id async for item in client.responses.input_items.list(one.id, limit=1)]
            assert len(set(rest)) == 4, "page by page"
            (last,) = (await client.responses.input_items.list(two.id)).data
            assert last.type == "message" and last.content[0].type == "input_text"
            assert last.content[0].text == "two"
            for wrong in ({"limit": 0}, {"limit": 101}, {"after": "item_none"}, {"order": "up"}):
                with pytest.raises(openai.BadRequestError):
                    await client.responses.input_items.list(one.id, **wrong)
            await client.responses.delete(two.id)
            for gone in (
                client.responses.retrieve,
                client.responses.delete,
                client.responses.input_items.list,
            ):
                with pytest.raises(openai.NotFoundError):
                    await gone(two.id)
            with pytest.raises(openai.BadRequestError):
                await client.responses.create(model="m", input="x", previous_response_id=two.id)
            assert (await client.responses.retrieve(one.id)).output_text == "4: there are"

    asyncio.run(story())


def test_what_is_not_offered_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "d") as started:
            client = client_of(started)
            with pytest.raises(openai.BadRequestError, match="compact"):
                await client.responses.compact(model="m", input="x")
            with pytest.raises(openai.BadRequestError, match="background"):
                await client.responses.cancel("resp_1")

    asyncio.run(story())


def test_a_voice_client_takes_a_stored_chain_over_and_the_old_response_then_forks(tmp_path: Path) -> None:
    data = tmp_path / "d"

    async def story() -> None:
        async with gateway(data) as started, socket_of(started) as line:
            one = (await line.ask(input="one"))["response"]["id"]
            (row,) = await started.store.sessions()
            assert one.startswith(f"resp_{row.session.removeprefix('sess_')}_"), (
                "a response names its session"
            )
            extra = {"session_id": row.session}
            async with client_of(started).realtime.connect(model="m", extra_query=extra) as voice:
                content: Any = [{"type": "input_text", "text": "two"}]
                await voice.conversation.item.create(
                    item={"type": "message", "role": "user", "content": content}
                )
                await voice.response.create(response={"output_modalities": ["text"], "tools": []})
                async for event in voice:
                    if event.type == "response.output_text.done":
                        assert event.text == "3: two"
                    if event.type == "response.done":
                        break
                seen = await line.ask(input="other", previous_response_id=one)
                assert text_of(seen) == "3: other", "the call went on: this is a fork of what was before it"
        assert len(stories(data)) == 2

    asyncio.run(story())


def test_a_response_of_another_tenant_is_not_found(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path / "t") as started, socket_of(started) as line:
            one = (await line.ask(input="one"))["response"]["id"]
            for tenant, is_found in (("default", True), ("other", False)):
                chains = StoredResponses(started.gateway, tenant)
                assert (await chains.find(one) is not None) is is_found
                assert (await chains.read(one) is not None) is is_found
        keys = {"one": "sk-one-0123456789", "two": "sk-two-0123456789"}
        async with gateway(tmp_path / "d", api_keys=keys) as started:
            with pytest.raises(openai.AuthenticationError):
                await client_of(started, "wrong").responses.create(model="m", input="x")
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with socket_of(started, "wrong"):
                    pass
            assert refused.value.response.status_code == 401

    asyncio.run(story())
