"""The agent of the tool-call benchmark: its ears and voice are twins, so that only the model's line is measured.

Its one tool gives back as many bytes as the environment's ``BENCH_RESULT_BYTES`` says, for the run in which the
gateway runs the tools itself.
"""

from __future__ import annotations

import os

from openline import Agent
from openline.testing.speech import EnergyDetector, ScriptedRecognizer, ToneSynthesizer

RESULT = "x" * int(os.environ.get("BENCH_RESULT_BYTES", "4096"))

agent = Agent(
    instructions="Read the files.",
    stt=ScriptedRecognizer(),
    tts=ToneSynthesizer(),
    vad=EnergyDetector,
    builtin_tools=False,
)


@agent.tool
async def read_file(path: str, first_line: int, last_line: int) -> str:
    """Read lines of a file."""
    return RESULT
