"""Stories through the whole gateway with the upstream link: two gateways chained, and a provider that breaks.

Covers B1, B3, B7, B14, D1, D4, E1 and F1 of the failure catalogue from the caller's side. The first gateway
is what a person would run with ``--model openai/NAME``; behind it stands a second Openline, or the fake provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from integration.gateway import Story, running, stories
from integration.line import Frame, Line, line, silence
from openline.agent.agent import Agent
from openline.core import facts as f
from openline.testing.fake_realtime import FakeRealtime, FakeReply
from openline.testing.scripts import scripted_speech

QUICK = {"model": "openai/up", "record": "off"}
TOOL = {
    "type": "function",
    "name": "stock",
    "description": "Parts in stock.",
    "parameters": {"type": "object", "properties": {"part": {"type": "string"}}},
}
LOUD = b"\x00\x40" * 480


@contextlib.asynccontextmanager
async def chained(folder: Path, agent: Agent | None = None) -> AsyncIterator[tuple[str, Path]]:
    """Two gateways on this loop: the URL of the one in front, and where its log is."""
    async with running(folder / "back", Agent(builtin_tools=False), model="scripted", record="off") as back:
        given: dict[str, Any] = {**QUICK, "upstream_url": f"{back.url}/v1"}
        async with running(folder / "front", agent, **given) as front:
            yield front.url, folder / "front"
    for name in ("front", "back"):
        assert stories(folder / name), "every log verifies"


@contextlib.asynccontextmanager
async def before(
    folder: Path, fake: FakeRealtime, agent: Agent | None = None, **settings: Any
) -> AsyncIterator[str]:
    """A gateway in front of the fake provider; its URL."""
    async with running(folder, agent, **{**QUICK, "upstream_url": fake.url, **settings}) as front:
        yield front.url


def only_story(folder: Path) -> Story:
    (story,) = stories(folder).values()
    return story


async def configure(call: Line, **session: Any) -> None:
    await call.send("session.update", session={"type": "realtime", **session})
    await call.wait("session.updated")


def text_of(done: Frame) -> str:
    part = done["response"]["output"][0]["content"][0]
    return str(part.get("text") or part.get("transcript"))


def run(story: Any) -> None:
    asyncio.run(story)


# ----------------------------------------------------------------------------------------- two gateways


def test_a_text_turn_through_two_gateways(tmp_path: Path) -> None:
    async def story() -> None:
        async with chained(tmp_path) as (url, data), line(url, openline=0) as call:
            await configure(call, output_modalities=["text"])
            assert text_of(await call.turn("hello over there")) == "You said: hello over there."
            assert text_of(await call.turn("say it again")) == "it again"
            deltas = call.of("response.output_text.delta")
            assert "".join(frame["delta"] for frame in deltas) == "You said: hello over there.it again"
            assert not call.of("error")
            metadata = [frame["response"].get("metadata") for frame in call.of("response.done")]
            assert not any(metadata), "what we ask upstream with is not the client's to see"
        assert only_story(data).of("response.done")

    run(story())


def test_an_audio_turn_through_two_gateways(tmp_path: Path) -> None:
    async def story() -> None:
        async with chained(tmp_path) as (url, _), line(url, openline=0) as call:
            await call.speak(scripted_speech("two screws please", 500) + silence(700), pace=0.2)
            await call.wait("input_audio_buffer.speech_started")
            await call.wait("input_audio_buffer.committed")
            done = await call.wait("response.done")
            assert text_of(done) == "You said: two screws please."
            heard = call.of("conversation.item.input_audio_transcription.completed")
            assert [frame["transcript"] for frame in heard] == ["two screws please"]
            assert len(call.audio()) > 24_000

    run(story())


def test_a_clients_tool_through_two_gateways(tmp_path: Path) -> None:
    async def story() -> None:
        async with chained(tmp_path) as (url, _), line(url, openline=0) as call:
            await configure(call, output_modalities=["text"], tools=[TOOL])
            done = await call.turn('call stock with {"part":"M8"} and call stock with {"part":"M9"}')
            calls = done["response"]["output"]
            assert [json.loads(item["arguments"])["part"] for item in calls] == ["M8", "M9"]
            for item, count in zip(calls, ("eight", "nine"), strict=True):
                output = {"type": "function_call_output", "call_id": item["call_id"], "output": count}
                await call.send("conversation.item.create", item=output)
            await call.send("response.create")
            assert text_of(await call.wait("response.done")) == "The tool said: nine"
            assert not call.of("error")

    run(story())


def test_the_gateways_own_tool_through_two_gateways(tmp_path: Path) -> None:
    agent = Agent()
    asked: list[str] = []

    @agent.tool
    async def stock(part: str) -> str:
        """Parts in stock."""
        asked.append(part)
        return "seven"

    async def story() -> None:
        async with chained(tmp_path, agent) as (url, _), line(url, openline=0) as call:
            await configure(call, output_modalities=["text"])
            await call.ask('call stock with {"part":"M8"}')
            done = await call.wait("response.done", lambda frame: bool(frame["response"]["output"]))
            assert text_of(done) == "The tool said: seven" and asked == ["M8"]

    run(story())


def test_barge_in_through_two_gateways(tmp_path: Path) -> None:
    async def story() -> None:
        async with chained(tmp_path) as (url, data), line(url, openline=0) as call:
            await call.ask("long")
            item = await call.wait("response.output_item.added")
            for _ in range(10):
                await call.wait("response.output_audio.delta")
            await call.speak(scripted_speech("stop it", 400) + silence(700), pace=0.5)
            cut = await call.wait("response.done")
            assert cut["response"]["status"] == "cancelled"
            assert cut["response"]["status_details"]["reason"] == "turn_detected"
            assert text_of(await call.wait("response.done")) == "You said: stop it."
            assert not call.of("error")
        heard = [fact for fact in only_story(data).of("openline.item.heard") if isinstance(fact, f.ItemHeard)]
        assert heard[0].item_id == item["item"]["id"] and 0 < heard[0].audio_end_ms < 9_000

    run(story())


# ------------------------------------------------------------------------------- a provider that breaks


def test_a_reply_that_nobody_heard_is_asked_for_again_on_a_new_link(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake, before(tmp_path, fake) as url, line(url) as call:
            await configure(call, output_modalities=["text"])
            fake.plan(FakeReply(fault="never"))
            await call.ask("are you there")
            await call.wait("response.created")
            async with asyncio.timeout(5):
                while not fake.latest.of("response.create"):
                    await asyncio.sleep(0.005)
            fake.latest.close(1011)
            first = await call.wait("response.done")
            assert first["response"]["status"] == "incomplete"
            done = await call.wait("response.done")
            assert done["response"]["status"] == "completed" and text_of(done) == "echo are you there"
            assert len(fake.connections) == 2
            assert [item["content"][0]["text"] for item in fake.latest.items[:1]] == ["are you there"]
        types = only_story(tmp_path).types()
        assert types.count("openline.link.lost") == 1 and types.count("openline.link.opened") == 2
        assert types.count("response.done") == 2

    run(story())


def test_a_reply_that_was_heard_in_part_is_cut_to_that_and_not_said_twice(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake, before(tmp_path, fake) as url, line(url) as call:
            text = "one two three four five six seven eight"
            fake.plan(FakeReply(text, audio_ms=2_400, pace_s=0.04, fault="half_then_close:1006"))
            await call.ask("count")
            added = await call.wait("response.output_item.added")
            done = await call.wait("response.done")
            assert done["response"]["status"] == "incomplete"
            said = text_of(done)
            assert said and text.startswith(said) and said != text
            assert text_of(await call.turn("go on")) == "echo go on"
            history = [item["content"][0]["text"] for item in fake.latest.items[:2]]
            assert history == ["count", said], "the new link is told what was heard, and no more (D1)"
            assert len(call.of("response.done")) == 2
            assert added["item"]["id"] in [item["id"] for item in fake.latest.items]

    run(story())


@pytest.mark.parametrize("how", ["close:1000", "close:1006", "http:503"])
def test_a_provider_that_needs_three_tries_is_waited_for(tmp_path: Path, how: str) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.opens = [how, how, "ok"]
            async with before(tmp_path, fake) as url, line(url) as call:
                await configure(call, output_modalities=["text"])
                assert text_of(await call.turn("hello")) == "echo hello"
                assert len(fake.seen_keys) == 3

    run(story())


def test_a_wrong_key_stops_at_once_and_says_why(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.opens = ["http:401"]
            async with before(tmp_path, fake) as url, line(url) as call:
                error = await call.wait("error")
                assert error["error"]["code"] == "link_rejected"
                await asyncio.sleep(0.4)
                assert len(fake.seen_keys) == 1, "nothing is tried again that cannot help (B8)"

    run(story())


def test_a_connection_is_renewed_before_its_cap_and_the_caller_notices_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake, before(tmp_path, fake, upstream_rotate_s=1.0) as url:
            async with line(url, openline=0) as call:
                await configure(call, output_modalities=["text"])
                assert text_of(await call.turn("before")) == "echo before"
                async with asyncio.timeout(10):
                    while len(fake.connections) < 2 or fake.connections[0].closed is None:
                        await asyncio.sleep(0.02)
                assert text_of(await call.turn("after")) == "echo after"
                said = [item["content"][0]["text"] for item in fake.latest.items]
                assert said == ["before", "echo before", "after", "echo after"]
                assert not call.of("error") and len(call.of("conversation.item.added")) == 4
        assert only_story(tmp_path).types().count("openline.link.opened") == 1

    run(story())


def test_a_tool_that_runs_while_the_link_breaks_tells_its_result_to_the_new_one(tmp_path: Path) -> None:
    agent = Agent()
    released: list[asyncio.Event] = []

    @agent.tool
    async def stock(part: str) -> str:
        """Parts in stock."""
        released.append(asyncio.Event())
        await released[0].wait()
        return "seven"

    async def story() -> None:
        async with FakeRealtime() as fake, before(tmp_path, fake, agent) as url, line(url) as call:
            await configure(call, output_modalities=["text"])
            await call.ask('call stock {"part":"M8"}')
            await call.wait("response.done")
            async with asyncio.timeout(5):
                while not released:
                    await asyncio.sleep(0.005)
            fake.latest.close(1001)
            async with asyncio.timeout(5):
                while len(fake.connections) < 2 or len(fake.latest.items) < 3:
                    await asyncio.sleep(0.005)
            assert "pending" in fake.latest.items[2]["output"]
            released[0].set()
            assert text_of(await call.wait("response.done")) == "result seven"
            assert len(released) == 1, "it ran once (E1)"

    run(story())
