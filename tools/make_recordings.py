"""Make the demo caller's recordings anew from src/openline/demo/phrases.toml.

For maintainers, and only when a phrase changes: needs ``flite`` (Debian: apt-get install flite) with the voice
named in the file. Writes src/openline/demo/audio/*.wav (16 kHz mono PCM16, silence trimmed, all at one level),
removes recordings that no phrase names, and prints what they weigh. Then run tools/measure_facts.py.

    python tools/make_recordings.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import wave
from array import array
from pathlib import Path

from openline.demo.phrases import Phrase, Phrases, load

FOLDER = Path(__file__).parents[1] / "src" / "openline" / "demo" / "audio"
RATE = 16_000
PEAK = 16_384
"""Loudest sample, half of full scale: an ordinary speaking level with room above."""
QUIET = 200
"""At or below this a sample counts as silence when the ends are trimmed (about -44 dB)."""
MARGIN = RATE // 25
"""Samples of silence left at either end: 40 ms keep soft consonants whole."""
LIMIT_BYTES = 3_000_000


def speak(voice: str, text: str) -> array[int]:
    """Samples of ``text`` as flite says it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
        with wave.open(str(path)) as recording:
            if (recording.getframerate(), recording.getnchannels(), recording.getsampwidth()) != (RATE, 1, 2):
                sys.exit(f"flite voice {voice}: expected 16 kHz mono 16 bit; take rms, awb, slt or kal16")
            return array("h", recording.readframes(recording.getnframes()))


def trimmed(samples: array[int]) -> array[int]:
    loud = [at for at, sample in enumerate(samples) if abs(sample) > QUIET]
    body = samples[max(0, loud[0] - MARGIN) : loud[-1] + MARGIN]
    factor = PEAK / max(abs(sample) for sample in body)
    return array("h", (round(sample * factor) for sample in body))


def write(phrase: Phrase, voice: str) -> int:
    path = FOLDER / phrase.file
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(trimmed(speak(voice, phrase.text)).tobytes())
    return path.stat().st_size


def all_phrases(book: Phrases) -> list[Phrase]:
    return [*book.phrases, *(fact.statement for fact in book.facts)]


def main() -> None:
    book = load()
    engine, voice = book.voice.split()
    if engine != "flite":
        sys.exit(f"phrases.toml: expected engine 'flite', got '{engine}'")
    wanted = all_phrases(book)
    FOLDER.mkdir(exist_ok=True)
    sizes = [write(phrase, voice) for phrase in wanted]
    for stale in set(FOLDER.glob("*.wav")) - {FOLDER / phrase.file for phrase in wanted}:
        stale.unlink()
    print(f"{len(sizes)} recordings, {sum(sizes):,} bytes in all, the largest {max(sizes):,}")
    if sum(sizes) > LIMIT_BYTES:
        sys.exit(f"expected at most {LIMIT_BYTES:,} bytes in the package; drop facts or shorten phrases")


if __name__ == "__main__":
    main()
