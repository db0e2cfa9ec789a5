"""docs/howto/own-model.md, followed with a real process: a gateway by its command line, a server beside it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from integration.gateway import GatewayProcess
from openline.errors import ConfigError
from openline.settings import BY_NAME, load
from openline.testing.fake_responses import FakeProvider
from openline.testing.fake_responses_parts import Reply

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "own-model.md"


@pytest.mark.parametrize(
    ("api", "path", "has_socket"),
    [("auto", "/v1/chat/completions", False), ("responses-ws", "ws", True)],
)
def test_one_setting_puts_a_model_behind_the_pipeline(
    tmp_path: Path, api: str, path: str, has_socket: bool
) -> None:
    async def story() -> None:
        provider = FakeProvider(
            lambda body: Reply("Good morning from my own model."),
            key="sk-mine",
            has_websocket=has_socket,
            has_responses=has_socket,
        )
        async with provider:
            asked = ("--llm-url", provider.url, "--llm-model", "my-model", "--llm-api", api)
            key = ("--llm-key-env", "MY_KEY", "--recognizer", "scripted", "--synthesizer", "tone")
            gateway = GatewayProcess(tmp_path / "d", (*asked, *key), environment={"MY_KEY": "sk-mine"})
            await asyncio.to_thread(gateway.start)
            try:
                await _say_hello(gateway.url)
            finally:
                await asyncio.to_thread(gateway.kill)
            used = provider.requests[-1]
            assert (used.path, used.body["model"]) == (path, "my-model")

    asyncio.run(story())


async def _say_hello(url: str) -> None:
    async with (
        AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client,
        client.realtime.connect(model="embedded") as line,
    ):
        text = {"type": "input_text", "text": "hello"}
        await line.conversation.item.create(item={"type": "message", "role": "user", "content": [text]})  # type: ignore[typeddict-item, list-item]  # plain JSON, as the page's reader has it
        await line.response.create(response={"output_modalities": ["audio"]})
        async with asyncio.timeout(10):
            async for event in line:
                if event.type == "response.output_audio_transcript.done":
                    assert event.transcript == "Good morning from my own model."
                if event.type == "response.done":
                    assert event.response.status == "completed"
                    return


def test_every_flag_on_the_page_exists() -> None:
    flags = set(re.findall(r"--(llm-[a-z-]+)", PAGE.read_text()))
    assert flags >= {
        "llm-url",
        "llm-model",
        "llm-api",
        "llm-key-env",
        "llm-lanes",
        "llm-sockets",
        "llm-store",
        "llm-reasoning",
    }
    assert {flag.replace("-", "_") for flag in flags} <= BY_NAME.keys()


def test_a_url_without_a_model_and_a_key_that_is_not_set_are_named() -> None:
    with pytest.raises(ConfigError, match="llm_model"):
        load({}, {"llm_url": "http://127.0.0.1:1/v1"})
    with pytest.raises(ConfigError, match="llm_key_env: the variable 'NO_SUCH' is not set"):
        load({}, {"llm_key_env": "NO_SUCH"})
    settings = load({"MINE": "sk"}, {"llm_key_env": "MINE", "llm_url": "http://h/v1", "llm_model": "m"})
    assert settings.llm_key == "sk"
