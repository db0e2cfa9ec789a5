"""Plugins of LiveKit Agents in the pipeline: a whole spoken turn, what goes wrong, and what is let go at once.

Run by ``make test-plugins``, in an environment that has them; skipped elsewhere.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("livekit.agents", reason="livekit-agents is not installed (make test-plugins)")
pytest.importorskip(
    "livekit.plugins.openai", reason="livekit-plugins-openai is not installed (make test-plugins)"
)
pytest.importorskip(
    "livekit.plugins.silero", reason="livekit-plugins-silero is not installed (make test-plugins)"
)

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError, llm, stt, tts, vad
from livekit.agents.types import TimedString
from livekit.agents.utils import http_context
from livekit.plugins import openai, silero
from openai import AsyncOpenAI

from integration.gateway import GatewayProcess, running
from integration.line import line, silence
from openline.adapters.livekit_plugins import detects, hears, speaks, thinks
from openline.adapters.livekit_plugins.plugin import link_error, speech_error
from openline.adapters.resample import Resampler
from openline.agent.agent import Agent
from openline.core.model import Item, ToolSpec
from openline.core.value import replace
from openline.demo.phrases import audio, load
from openline.errors import ConfigError, LinkRejected, LinkUnavailable, SpeechError
from openline.ports import SPEECH_RATE, WIRE_RATE, ModelDone, Speech, ToolCallDone
from openline.testing.check_llm import PART_TOOL, ask, collect
from openline.testing.fake_audio import FakeAudio
from openline.testing.fake_responses import FakeProvider
from openline.testing.fake_responses_parts import Fault, Reply
from openline.testing.speech import tone
from openline.types import ItemId

SECRET = "sk-secret"
WORDS = "a private sentence"
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "own-model.md"


@asynccontextmanager
async def started(engine: Any) -> AsyncIterator[Any]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


# ------------------------------------------------------------------------------------------ in the pipeline


def test_a_turn_is_heard_thought_and_spoken_by_plugins(tmp_path: Path) -> None:
    """Silero hears where a recorded caller speaks; OpenAI's plugins do the rest, against fake servers."""
    up = Resampler(SPEECH_RATE, WIRE_RATE)
    spoken = up.convert(audio(load().by_name("about"))) + up.flush()

    async def story() -> None:
        provider = FakeProvider(lambda body: Reply("Good morning from a plugin."), key="k")
        async with (
            provider,
            FakeAudio("what is this about", key="k") as fake,
            AsyncOpenAI(base_url=fake.url, api_key="k") as own,
        ):
            detectors = detects(silero.VAD.load())
            agent = Agent(
                stt=hears(openai.STT(client=own)),
                tts=speaks(openai.TTS(base_url=fake.url, api_key="k", response_format="pcm")),
                llm=thinks(openai.LLM(model="m", base_url=provider.url, api_key="k")),
                vad=detectors,
            )
            async with running(tmp_path / "data", agent) as gateway:
                async with line(gateway.url) as caller:
                    await caller.speak(spoken + silence(900))
                    heard = await caller.wait("conversation.item.input_audio_transcription.completed")
                    assert heard["transcript"] == "what is this about"
                    done = (await caller.wait("response.done"))["response"]
                    said = done["output"][0]["content"][0]["transcript"]
                    assert done["status"] == "completed" and said == "Good morning from a plugin."
                    assert len(caller.audio()) > 24_000
            assert not detectors.running, "the session's detector was closed with it"
        texts = [message["content"] for message in provider.requests[-1].body["messages"]]
        assert texts[-1] == "what is this about"

    asyncio.run(story())


def test_the_page_followed_literally_starts_a_gateway_that_answers(tmp_path: Path) -> None:
    found = re.search(
        r"as `plugins.py`\n\n```python\n(.*?)```.*?openline serve (plugins:agent)\n", PAGE.read_text(), re.S
    )
    assert found is not None
    (tmp_path / "plugins.py").write_text(found[1])

    async def story() -> None:
        async with FakeProvider(lambda body: Reply("Good morning from the page."), key="sk-mine") as provider:
            environment = {"OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": "sk-mine"}
            gateway = GatewayProcess(tmp_path / "d", (found[2],), folder=tmp_path, environment=environment)
            await asyncio.to_thread(gateway.start)
            try:
                async with line(gateway.url) as caller:
                    part = {"type": "input_text", "text": "hello"}
                    item = {"type": "message", "role": "user", "content": [part]}
                    await caller.send("conversation.item.create", item=item)
                    await caller.send("response.create", response={"output_modalities": ["text"]})
                    done = (await caller.wait("response.done"))["response"]
                    assert done["output"][0]["content"][0]["text"] == "Good morning from the page."
                assert await asyncio.to_thread(gateway.stop) == 0
            finally:
                if gateway.process is not None:
                    await asyncio.to_thread(gateway.kill)
            assert provider.requests[-1].body["model"] == "gpt-5.4-mini"

    asyncio.run(story())


# ------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("error", "says", "is_for_good"),
    [
        (
            APIStatusError(WORDS, status_code=401, body={"code": "invalid_api_key"}),
            "401 (invalid_api_key)",
            True,
        ),
        (APIStatusError(WORDS, status_code=404), "HTTP 404", True),
        (APIStatusError(WORDS, status_code=429), "HTTP 429", False),
        (
            APIStatusError(WORDS, status_code=429, body={"error": {"code": "insufficient_quota"}}),
            "quota",
            True,
        ),
        (APIStatusError(WORDS, status_code=503, body={"code": f"{WORDS}!"}), "HTTP 503.", False),
        (APITimeoutError(WORDS), "no answer in time", False),
        (APIConnectionError(WORDS), "the connection failed (APIConnectionError)", False),
        (APIError(WORDS, retryable=False), "gave up (APIError)", True),
        (TimeoutError(WORDS), "silent for too long", False),
        (ValueError(WORDS), "the plugin failed (ValueError)", False),
    ],
)
def test_an_error_of_theirs_is_one_of_ours_with_cause_and_without_words(
    error: Exception, says: str, is_for_good: bool
) -> None:
    heard, linked = speech_error("recognizer x", error), link_error("language model x", error)
    assert isinstance(linked, LinkRejected if is_for_good else LinkUnavailable)
    assert says in str(heard) and says in str(linked) and linked.cause
    assert WORDS not in f"{heard} {linked} {linked.cause}"


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_server_that_refuses_is_named_with_its_status(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with (
            FakeAudio(status=status) as fake,
            AsyncOpenAI(base_url=fake.url, api_key=SECRET, max_retries=0) as own,
            started(hears(openai.STT(client=own))) as ears,
            started(speaks(openai.TTS(base_url=fake.url, api_key=SECRET))) as voice,
        ):
            stream = ears.stream(lambda text: None)
            stream.push(tone(300, 500, rate=SPEECH_RATE))
            with pytest.raises(SpeechError, match=f"livekit.plugins.openai.*HTTP {status}") as heard:
                await stream.finish()
            with pytest.raises(SpeechError, match=f"HTTP {status}") as spoken:
                await anext(voice.speak(WORDS))
            assert ears.free_slots == 32
            assert heard.value.__suppress_context__ and SECRET not in f"{heard.value} {spoken.value}"
            assert len(fake.requests) == 2, "no retries that nobody knows of"

    asyncio.run(story())
    assert SECRET not in caplog.text and WORDS not in caplog.text


def test_a_model_that_refuses_breaks_off_or_says_nothing_is_told_apart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        async with FakeProvider(key="k") as provider:
            wrong = openai.LLM(model="m", base_url=provider.url, api_key=SECRET)
            async with started(thinks(wrong)) as model:
                with pytest.raises(LinkRejected, match="HTTP 401") as refused:
                    await collect(model, ask(WORDS))
                assert SECRET not in str(refused.value) and WORDS not in str(refused.value)
            right = openai.LLM(model="m", base_url=provider.url, api_key="k")
            async with started(thinks(right, stall_s=0.3)) as model:
                provider.faults.append(Fault("refuse", code="server_error", status=503))
                with pytest.raises(LinkUnavailable, match="HTTP 503"):
                    await collect(model, ask(WORDS))
                provider.faults.append(Fault("silence", after=2))
                with pytest.raises(LinkUnavailable, match="silent|in time"):
                    await collect(model, ask(WORDS))
        async with started(thinks(openai.LLM(base_url="http://127.0.0.1:9/v1", api_key="k"))) as model:
            with pytest.raises(LinkUnavailable, match="the connection failed"):
                await collect(model, ask(WORDS))

    asyncio.run(story())
    assert SECRET not in caplog.text and WORDS not in caplog.text


@pytest.mark.parametrize(
    ("error", "says"),
    [(APIStatusError(WORDS, status_code=401), "HTTP 401"), (None, "ended before the utterance did")],
)
def test_a_stream_that_ends_in_the_middle_is_told_with_its_cause_at_the_next_audio(
    error: Exception | None, says: str
) -> None:
    class Short(stt.STT[Any]):
        def __init__(self) -> None:
            super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))

        async def _recognize_impl(self, *arguments: Any, **named: Any) -> stt.SpeechEvent:
            raise AssertionError("it streams")

        def stream(self, *, language: Any = "", conn_options: Any) -> stt.RecognizeStream:
            return _ShortStream(stt=self, conn_options=conn_options)

    class _ShortStream(stt.RecognizeStream):
        async def _run(self) -> None:
            await anext(aiter(self._input_ch))
            if error is not None:
                raise error

    async def story() -> None:
        async with started(hears(Short())) as ears:
            stream = ears.stream(lambda text: None)
            with pytest.raises(SpeechError, match=says) as told:
                for _ in range(50):
                    stream.push(bytes(640))
                    await asyncio.sleep(0.01)
            assert WORDS not in str(told.value)
            await stream.cancel()
            assert ears.free_slots == 32

    asyncio.run(story())


@pytest.mark.parametrize("wrap", [hears, speaks, thinks, detects])
def test_what_is_no_plugin_is_refused_at_once(wrap: Any) -> None:
    with pytest.raises(ConfigError, match="expected a .* of livekit.agents; got 'str'"):
        wrap("openai")


def test_a_stream_adapter_is_refused_because_it_would_wait_for_silence_that_does_not_come() -> None:
    adapter = stt.StreamAdapter(stt=openai.STT(api_key="k"), vad=silero.VAD.load())
    with pytest.raises(ConfigError, match="pass what the adapter wraps"):
        hears(adapter)


def test_a_detector_whose_plugin_dies_is_logged_and_begun_anew(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fragile(vad.VAD):
        def __init__(self) -> None:
            super().__init__(capabilities=vad.VADCapabilities(update_interval=0.032))
            self.streams = 0

        def stream(self) -> vad.VADStream:
            self.streams += 1
            return _Dying(self) if self.streams == 1 else _Sure(self)

    class _Dying(vad.VADStream):
        async def _main_task(self) -> None:
            raise RuntimeError(WORDS)

    class _Sure(vad.VADStream):
        async def _main_task(self) -> None:
            async for _ in self._input_ch:
                event = vad.VADEvent(vad.VADEventType.INFERENCE_DONE, 0, 0.0, 0.0, 0.0, probability=0.9)
                self._event_ch.send_nowait(event)

    monkeypatch.setattr("openline.adapters.livekit_plugins.detector.RETRY_S", 0.0)
    detectors = detects(Fragile())
    try:
        detector = detectors()
        frame = bytes(2 * detector.frame_samples)
        values = [detector.probability(frame) for _ in range(5)]
    finally:
        detectors.close()
    assert values[-1] == 0.9
    assert "its stream ended (RuntimeError)" in caplog.text


# ------------------------------------------------------------------------------------------- let go at once


async def soon(happened: Any) -> None:
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0.01)


def test_a_voice_that_is_cut_short_lets_its_connection_go_at_once() -> None:
    async def story() -> None:
        async with (
            FakeAudio() as fake,
            started(speaks(openai.TTS(base_url=fake.url, api_key="k", response_format="pcm"))) as voice,
        ):
            chunks = voice.speak("A sentence of many words that somebody interrupts. " * 40)
            await anext(chunks)
            assert fake.cut == 0
            await chunks.aclose()
            await soon(lambda: fake.cut)

    asyncio.run(story())


def test_a_reply_that_is_cut_short_lets_its_connection_go_at_once() -> None:
    async def story() -> None:
        provider = FakeProvider(lambda body: Reply("word " * 200, pace_s=0.01))
        async with provider, started(thinks(openai.LLM(base_url=provider.url, api_key="k"))) as model:
            events = model.generate(ask("hello"))
            await anext(events)
            assert provider.cut_off == 0
            await events.aclose()
            await soon(lambda: provider.cut_off)

    asyncio.run(story())


# ------------------------------------------------------------------------------------------- what goes over


def test_tools_context_and_usage_go_over_whole() -> None:
    async def story() -> None:
        provider = FakeProvider(lambda body: Reply("Two.", calls=(("a", '{"n":1}'), ("b", "{}"))))
        async with (
            provider,
            started(thinks(openai.LLM(model="m", base_url=provider.url, api_key="k"))) as model,
        ):
            request = ask("how many hinges", tools=(PART_TOOL, ToolSpec("b")))
            call = Item(
                ItemId("i2"), "function_call", "assistant", call_id="c1", name="check_stock", arguments="{}"
            )
            events = await collect(
                model, replace(request, items=(*request.items, call), parallel_tool_calls=False)
            )
            calls = [(e.index, e.name, e.arguments) for e in events if isinstance(e, ToolCallDone)]
            assert calls == [(0, "a", '{"n":1}'), (1, "b", "{}")]
            end = events[-1]
            assert (
                isinstance(end, ModelDone) and end.usage.cached_tokens == 3 and end.usage.output_tokens == 5
            )
            body = provider.requests[0].body
            assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "tool"]
            assert body["messages"][-1]["content"] == '{"status":"pending"}', (
                "a call without a result has a stand-in"
            )
            assert [t["function"]["name"] for t in body["tools"]] == ["check_stock", "b"]
            assert body["tools"][0]["function"]["parameters"]["required"] == ["part"]
            assert body["parallel_tool_calls"] is False and body["tool_choice"] == "auto"

    asyncio.run(story())


def test_a_limit_is_passed_on_where_the_plugin_has_a_name_for_it() -> None:
    async def story() -> None:
        provider = FakeProvider(lambda body: Reply("one two three four five"))
        async with provider:
            plugin = openai.LLM(model="m", base_url=provider.url, api_key="k")
            async with started(thinks(plugin, limit_as="max_tokens")) as model:
                end = (await collect(model, replace(ask("count"), max_output_tokens=2)))[-1]
            assert provider.requests[0].body["max_tokens"] == 2
            assert isinstance(end, ModelDone) and end.reason == "max_output_tokens"

    asyncio.run(story())


def test_what_a_provider_hangs_on_a_tool_call_comes_back_with_it() -> None:
    """Gemini refuses a call that is told without its thought signature."""

    class Signing(llm.LLM[Any]):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[llm.ChatContext] = []

        def chat(
            self, *, chat_ctx: llm.ChatContext, tools: Any, conn_options: Any, **more: Any
        ) -> llm.LLMStream:
            self.asked.append(chat_ctx)
            return _Signed(self, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options)

    class _Signed(llm.LLMStream):
        async def _run(self) -> None:
            call = llm.FunctionToolCall(name="f", arguments="{}", call_id="c1", extra={"google": {"s": "x"}})
            self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=llm.ChoiceDelta(tool_calls=[call])))

    async def story() -> None:
        plugin = Signing()
        async with started(thinks(plugin)) as model:
            request = ask("go", tools=(ToolSpec("f"),))
            await collect(model, request)
            call = Item(ItemId("i2"), "function_call", "assistant", call_id="c1", name="f", arguments="{}")
            await collect(model, replace(request, items=(*request.items, call)))
        told = plugin.asked[1].items[-2]
        assert isinstance(told, llm.FunctionCall) and told.extra == {"google": {"s": "x"}}

    asyncio.run(story())


class Stereo(tts.TTS[Any]):
    """16 kHz, two channels, word times, and its audio over "the job's" HTTP session."""

    def __init__(self, url: str) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=False, aligned_transcript=True),
            sample_rate=16_000,
            num_channels=2,
        )
        self.url = url

    def synthesize(self, text: str, *, conn_options: Any) -> tts.ChunkedStream:
        return _StereoStream(tts=self, input_text=text, conn_options=conn_options)


class _StereoStream(tts.ChunkedStream):
    async def _run(self, emitter: tts.AudioEmitter) -> None:
        plugin = self._tts
        assert isinstance(plugin, Stereo)
        emitter.initialize(request_id="r", sample_rate=16_000, num_channels=2, mime_type="audio/pcm")
        wish = {"input": self._input_text, "speed": 1.0}
        async with http_context.http_session().post(f"{plugin.url}/audio/speech", json=wish) as answer:
            mono = await answer.read()
        words = [
            TimedString("One", 0.0, 0.5),
            TimedString("two", 0.5, 0.9),
            TimedString("no-such", 0.9, 0.95),
        ]
        emitter.push_timed_transcript(words)
        emitter.push(b"".join(mono[at : at + 2] * 2 for at in range(0, len(mono), 2)))
        emitter.flush()


def test_any_rate_and_channels_come_out_as_ours_with_the_plugins_own_word_times() -> None:
    text = "One two, three four."

    async def story() -> list[Speech]:
        async with FakeAudio() as fake, started(speaks(Stereo(fake.url))) as voice:
            return [chunk async for chunk in voice.speak(text)]

    chunks = asyncio.run(story())
    # The fake's 66 ms a character at 24 kHz, taken for 16 kHz: half as long again.
    assert abs(sum(len(c.pcm) for c in chunks) / 48_000 - len(text) * 0.066 * 1.5) < 0.05
    marks = {round(0.04 * (at + 1), 2): chunk.text_end for at, chunk in enumerate(chunks)}
    assert marks[0.48] == 0 and marks[0.52] == len("One") and marks[0.92] == len("One two,")
    assert chunks[-2].text_end == len("One two,") and chunks[-1].text_end == len(text)
