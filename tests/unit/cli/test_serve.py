"""What `openline serve` says of itself."""

from __future__ import annotations

import pytest

from openline.agent.agent import Agent
from openline.cli.serve import model_in_words
from openline.settings import Settings
from openline.testing.speech import ScriptedRecognizer


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Settings(), "embedded pipeline"),
        (Settings(model="scripted"), "scripted"),
        (
            Settings(llm_url="http://127.0.0.1:11434/v1", llm_model="qwen3:4b"),
            "embedded pipeline; thinks: qwen3:4b at http://127.0.0.1:11434/v1",
        ),
        (
            Settings(
                stt_url="http://127.0.0.1:8000/v1",
                stt_model="whisper-1",
                tts_url="http://127.0.0.1:8880/v1",
                tts_model="kokoro",
            ),
            "embedded pipeline; hears: whisper-1 at http://127.0.0.1:8000/v1; "
            "speaks: kokoro at http://127.0.0.1:8880/v1",
        ),
        (
            Settings(model="openai/gpt-realtime", upstream_url="https://api.openai.com/v1"),
            "openai/gpt-realtime at https://api.openai.com/v1",
        ),
    ],
)
def test_what_hears_thinks_and_speaks_is_said(settings: Settings, says: str) -> None:
    assert model_in_words(settings, None) == says


def test_what_the_agent_brings_counts_before_a_url() -> None:
    settings = Settings(stt_url="http://127.0.0.1:8000/v1", stt_model="whisper-1")
    agent = Agent(stt=ScriptedRecognizer([]))
    assert model_in_words(settings, agent) == "embedded pipeline; hears: the agent"
