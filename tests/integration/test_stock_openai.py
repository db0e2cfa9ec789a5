"""What a person does with the stock openai client: text, speech, barge-in, tools, all by base_url alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from integration.gateway import GatewayProcess, stories
from integration.line import silence, spoken
from integration.stock import Stock, stock
from openline import bootstrap
from openline.demo import phrases

TOOLS = [
    {
        "type": "function",
        "name": name,
        "description": f"{name} of a part",
        "parameters": {
            "type": "object",
            "properties": {"part": {"type": "string"}},
            "required": ["part"],
        },
    }
    for name in ("stock", "price")
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """The embedded pipeline in a process of its own, as ``openline serve`` runs it; it hears the demo's phrases."""
    folder = tmp_path_factory.mktemp("stock")
    grammar = folder / "grammar.txt"
    grammar.write_text("\n".join(phrases.load().caller_grammar))
    arguments = ("--recognizer-grammar", str(grammar), "--recognizer-workers", "1", "--log-level", "warning")
    with GatewayProcess(folder / "data", arguments) as running:
        yield running
        assert running.stop() == 0
    assert stories(folder / "data"), "every session of this file verifies"


needs_ears = pytest.mark.skipif(
    not bootstrap.speech_wheels()["pocketsphinx"], reason="no recognizer for this platform"
)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_a_text_turn(gateway: GatewayProcess) -> None:
    async def story() -> None:
        async with stock(gateway.url) as call:
            await call.configure(output_modalities=["text"])
            done = await call.turn("My code word is tiger seven.")
            assert done.status == "completed"
            again = await call.turn("What is my code word?")
            assert "tiger seven" in again.output[0].content[0].text.lower()
            deltas = [
                event for event in call.of("response.output_text.delta") if event.response_id == again.id
            ]
            assert "".join(event.delta for event in deltas) == again.output[0].content[0].text
            own = [
                event.type
                for event in call.events
                if getattr(event, "response_id", "") == done.id and "delta" not in event.type
            ]
            assert own == [
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
            ]

    run(story())


@needs_ears
def test_an_audio_turn_with_server_vad(gateway: GatewayProcess) -> None:
    """The caller's recording goes in at real time; words and sound come back. The gateway's tool is not seen."""

    async def story() -> None:
        async with stock(gateway.url) as call:
            await call.configure(audio={"input": {"turn_detection": {"type": "server_vad"}}})
            await call.speak(silence(200) + spoken("times") + silence(900))
            started = await call.wait("input_audio_buffer.speech_started")
            stopped = await call.wait("input_audio_buffer.speech_stopped")
            assert started.item_id == stopped.item_id and started.audio_start_ms < stopped.audio_end_ms
            committed = await call.wait("input_audio_buffer.committed")
            assert committed.item_id == started.item_id
            heard = await call.wait("conversation.item.input_audio_transcription.completed")
            assert heard.transcript.lower().strip(".?") == "what is twelve times seven"
            calling = (await call.wait("response.done")).response
            assert (calling.status, calling.output) == ("completed", []), "the tool's response shows nothing"
            done = (await call.wait("response.done")).response
            words = done.output[-1].content[0].transcript.lower()
            assert "84" in words or "eighty" in words, words
            assert len(call.audio()) > 24_000, "half a second of speech at least"
            assert not [event.type for event in call.events if "mcp" in event.to_json()]
            places = [(event.item.id, event.previous_item_id) for event in call.of("conversation.item.added")]
            assert places == [(committed.item_id, None), (done.output[0].id, committed.item_id)]

    run(story())


def test_a_client_that_asks_is_shown_the_tools_that_the_gateway_runs(gateway: GatewayProcess) -> None:
    async def story() -> None:
        async with stock(gateway.url, extra_query={"server_tools": "shown"}) as call:
            await call.configure(output_modalities=["text"])
            await call.ask("What is twelve times seven?")
            settled = await call.wait("conversation.item.done", lambda event: event.item.type == "mcp_call")
            answer = await call.wait("conversation.item.done", lambda event: event.item.type == "message")
            assert settled.item.output and answer.previous_item_id == settled.item.id
            done = [event.response for event in call.of("response.done")]
            assert done[0].output[0].type == "mcp_call"

    run(story())


@needs_ears
def test_barge_in_stops_the_reply_and_the_agent_knows_what_was_heard(gateway: GatewayProcess) -> None:
    async def story() -> None:
        async with stock(gateway.url) as call:
            await call.speak(spoken("about") + silence(700))
            item = (await call.wait("response.output_item.added", lambda e: e.item.type == "message")).item
            await call.wait("response.output_audio.delta")
            await asyncio.sleep(1.0)
            began = len(call.audio())
            speaking = asyncio.create_task(call.speak(spoken("stop") + silence(700)))
            await call.wait("input_audio_buffer.speech_started")
            done = (await call.wait("response.done")).response
            assert (done.status, done.status_details.reason) == ("cancelled", "turn_detected")
            at_cut = len(call.audio())
            assert at_cut > began > 0
            await call.connection.conversation.item.truncate(
                item_id=item.id, content_index=0, audio_end_ms=900
            )
            cut = await call.wait("conversation.item.truncated")
            assert (cut.item_id, cut.audio_end_ms) == (item.id, 900)
            await call.connection.conversation.item.retrieve(item_id=item.id)
            known = (await call.wait("conversation.item.retrieved")).item
            sent = "".join(
                event.delta
                for event in call.of("response.output_audio_transcript.delta")
                if event.item_id == item.id
            )
            heard = known.content[0].transcript
            assert sent.startswith(heard) and 0 < len(heard) < len(sent) / 2, (heard, sent)
            await speaking
            await call.wait("response.done")
            late = [e for e in call.of("response.output_audio.delta") if e.response_id == done.id]
            after = call.events[call.types().index("conversation.item.truncated") :]
            assert not [event for event in after if event in late], "nothing of a reply after its terminal"

    run(story())


def test_client_run_tools_one_and_many(gateway: GatewayProcess) -> None:
    async def story() -> None:
        async with stock(gateway.url) as call:
            await call.configure(output_modalities=["text"], tools=TOOLS)
            done = await call.turn('call stock with {"part": "bolt"}')
            (wish,) = done.output
            assert (wish.type, wish.name, json.loads(wish.arguments)) == (
                "function_call",
                "stock",
                {"part": "bolt"},
            )
            whole = await answer(call, wish.call_id, "17 bolts")
            assert "17" in whole.output[0].content[0].text
            both = await call.turn('call stock with {"part": "nut"} and call price with {"part": "nut"}')
            assert [output.name for output in both.output] == ["stock", "price"]
            assert len({output.call_id for output in both.output}) == 2
            for output in both.output:
                assert json.loads(output.arguments) == {"part": "nut"}
                deltas = [
                    event.delta
                    for event in call.of("response.function_call_arguments.delta")
                    if event.call_id == output.call_id
                ]
                assert "".join(deltas) == output.arguments
            await output_of(call, both.output[0].call_id, "3 nuts")
            last = await answer(call, both.output[1].call_id, "9 cents")
            assert last.status == "completed" and last.output[0].type == "message"

    run(story())


async def output_of(call: Stock, call_id: str, output: str) -> None:
    item: Any = {"type": "function_call_output", "call_id": call_id, "output": output}
    await call.connection.conversation.item.create(item=item)


async def answer(call: Stock, call_id: str, output: str) -> Any:
    await output_of(call, call_id, output)
    await call.connection.response.create()
    return (await call.wait("response.done")).response


@needs_ears
def test_turns_by_hand(gateway: GatewayProcess) -> None:
    """No turn detection: nothing happens until the client commits, and no reply until it asks."""

    async def story() -> None:
        async with stock(gateway.url) as call:
            await call.configure(output_modalities=["text"], audio={"input": {"turn_detection": None}})
            await call.speak(spoken("hello"), pace=0.0)
            await call.connection.input_audio_buffer.clear()
            await call.wait("input_audio_buffer.cleared")
            await call.connection.input_audio_buffer.commit()
            empty = await call.wait("error")
            assert empty.error.code == "input_audio_buffer_commit_empty"
            await call.speak(spoken("tiger seven"), pace=0.0)
            await call.connection.input_audio_buffer.commit()
            committed = await call.wait("input_audio_buffer.committed")
            heard = await call.wait("conversation.item.input_audio_transcription.completed")
            assert heard.item_id == committed.item_id and "tiger seven" in heard.transcript.lower()
            assert not call.of("input_audio_buffer.speech_started") and not call.of("response.created")
            done = await call.turn("What is my code word?")
            assert "tiger seven" in done.output[0].content[0].text.lower()

    run(story())


def test_out_of_band_responses_leave_no_trace(gateway: GatewayProcess) -> None:
    async def story() -> None:
        async with stock(gateway.url) as call:
            await call.configure(output_modalities=["text"])
            await call.connection.response.create(
                response={
                    "conversation": "none",
                    "metadata": {"topic": "aside"},
                    "output_modalities": ["text"],
                    "input": [
                        {
                            "type": "message",
                            "role": "user",
                            "content": [{"type": "input_text", "text": "Hello there."}],
                        }
                    ],
                }
            )
            done = (await call.wait("response.done")).response
            assert (done.status, done.metadata, done.conversation_id) == (
                "completed",
                {"topic": "aside"},
                None,
            )
            assert not call.of("conversation.item.added")
            await call.connection.conversation.item.retrieve(item_id=done.output[0].id)
            assert (await call.wait("error")).error.code == "item_retrieve_invalid_item_id"

    run(story())


def test_items_are_made_placed_retrieved_and_deleted(gateway: GatewayProcess) -> None:
    async def story() -> None:
        async with stock(gateway.url) as call:
            for name in ("item_one", "item_two"):
                await call.connection.conversation.item.create(item=message(name))
            await call.connection.conversation.item.create(
                item=message("item_first"), previous_item_id="root"
            )
            await call.connection.conversation.item.create(
                item=message("item_between"), previous_item_id="item_one"
            )
            places = {}
            for _ in range(4):
                done = await call.wait("conversation.item.done")
                places[done.item.id] = done.previous_item_id
            assert places == {
                "item_one": None,
                "item_two": "item_one",
                "item_first": None,
                "item_between": "item_one",
            }
            await call.connection.conversation.item.retrieve(item_id="item_two")
            assert (await call.wait("conversation.item.retrieved")).item.content[0].text == "item_two"
            await call.connection.conversation.item.delete(item_id="item_two")
            assert (await call.wait("conversation.item.deleted")).item_id == "item_two"
            await call.connection.conversation.item.retrieve(item_id="item_two")
            assert (await call.wait("error")).error.code == "item_retrieve_invalid_item_id"
            # A stock client that comes back makes its history again: shown to it, and no second item.
            await call.connection.conversation.item.create(item=message("item_one"))
            assert (await call.wait("conversation.item.done")).item.id == "item_one"

    run(story())


def message(name: str) -> Any:
    content = [{"type": "input_text", "text": name}]
    return {"type": "message", "id": name, "role": "user", "content": content}


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"output_modalities": ["smell"]}, "session.output_modalities"),
        ({"max_output_tokens": -1}, "session.max_output_tokens"),
        ({"tools": [{"type": "function"}]}, "session.tools[0].name"),
        (
            {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}},
            "session.audio.input.format.rate",
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "telepathy"}}}},
            "session.audio.input.turn_detection.type",
        ),
    ],
)
def test_a_wrong_session_update_changes_nothing(
    gateway: GatewayProcess, session: dict[str, Any], param: str
) -> None:
    async def story() -> None:
        async with stock(gateway.url) as call:
            await call.connection.session.update(session={"type": "realtime", **session}, event_id="mine")
            error = (await call.wait("error")).error
            assert (error.type, error.event_id) == ("invalid_request_error", "mine")
            assert error.param is not None and error.param.startswith(param.split("[")[0]), error
            updated = await call.configure(instructions="Still here.")
            assert updated.session.instructions == "Still here."
            assert updated.session.output_modalities == ["audio"]

    run(story())


def test_a_clean_close_parks_at_once(gateway: GatewayProcess) -> None:
    async def story() -> None:
        async with stock(gateway.url) as call:
            session = call.events[0].session.id
            await call.turn("Hello there.", output_modalities=["text"])
        async with asyncio.timeout(5):
            while stories(gateway.data)[session].status != "parked":
                await asyncio.sleep(0.02)

    run(story())
