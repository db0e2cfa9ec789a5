"""The demo's recorded caller as files that a client's program can read: ``NAME.wav`` and ``phrases.json``.

24,000 samples a second, mono, PCM16 little-endian, no silence around the speech. ``phrases.json`` is a list of
``{"name", "file", "text"}``: what is said, for which the gateways of the test listen.
"""

from __future__ import annotations

import json
import wave
from pathlib import Path

from openline.adapters.resample import Resampler
from openline.demo import phrases
from openline.ports import SPEECH_RATE, WIRE_RATE


def write(folder: Path) -> None:
    """Put every phrase and every fact into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    known = phrases.load()
    said = [*known.phrases, *(fact.statement for fact in known.facts)]
    for phrase in said:
        resampler = Resampler(SPEECH_RATE, WIRE_RATE)
        with wave.open(str(folder / phrase.file), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(WIRE_RATE)
            file.writeframes(resampler.convert(phrases.audio(phrase)) + resampler.flush())
    rows = [{"name": phrase.name, "file": phrase.file, "text": phrase.text} for phrase in said]
    (folder / "phrases.json").write_text(json.dumps(rows, indent=1))


def write_grammar(path: Path) -> None:
    """What the recognizer of the test's gateways listens for."""
    path.write_text("\n".join(phrases.load().caller_grammar))
