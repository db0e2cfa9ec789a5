"""Measure how well the demo's recordings and the agent's answers are understood; print a table, keep the result.

Three things, all with the engines that the embedded pipeline uses:
1. the caller: every recording, recognized with the grammar of all phrases (must be 100 %) and as free speech;
2. the agent: "Your code word is tiger seven." as our synthesizer says it, resampled and with noise, recognized
   with a grammar of all answers that is not told which, ``--repeats`` times with another speed and noise each;
   and once more with a grammar of every word with every number, where a slip in either part shows;
3. time: how long after the last sample of a recording, played at real pace, its transcript is there.

A fact that is misheard once is to be dropped from src/openline/demo/phrases.toml. Exit code 1 if there is one.

    python tools/measure_facts.py [--repeats 3] [--out bench/results/facts-recognition.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import subprocess
import sys
import time
from array import array
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from openline.adapters.resample import Resampler
from openline.adapters.stt_pocketsphinx import PocketSphinxRecognizer
from openline.adapters.stt_pocketsphinx_worker import words_of
from openline.adapters.tts_espeak import EspeakSynthesizer
from openline.demo.phrases import Fact, Phrase, Phrases, audio, load
from openline.ports import SPEECH_RATE, WIRE_RATE, Transcript

DEFAULT_OUT = Path(__file__).parents[1] / "bench" / "results" / "facts-recognition.json"
FRAME_BYTES = SPEECH_RATE // 50 * 2
SPEEDS = (1.0, 0.95, 1.05)
NOISE_DB = 30.0
"""Noise under the agent's voice: far more than a lossless recording has, so that 0 errors mean something."""
LEAD = bytes(SPEECH_RATE * 2 * 3 // 10)
"""300 ms of silence, as the pipeline keeps in front of speech."""


@dataclass
class Row:
    """One fact: was its statement heard, and how often was its answer mistaken for another?"""

    fact: str
    caller_grammar_ok: bool = False
    caller_fit: float = 0.0
    free_speech: str = ""
    answer_errors: int = 0
    answer_errors_any_pair: int = 0
    mistaken_for: list[str] = field(default_factory=list)


async def recognize(
    recognizer: PocketSphinxRecognizer, pcm: bytes, grammar: tuple[str, ...] = ()
) -> Transcript:
    stream = recognizer.stream(lambda text: None, grammar=grammar)
    stream.push(pcm)
    return await stream.finish()


def noisy(pcm: bytes, seed: int) -> bytes:
    """``pcm`` with white noise ``NOISE_DB`` under its loudness."""
    samples = array("h", pcm)
    loudness = (sum(sample * sample for sample in samples) / len(samples)) ** 0.5
    level = loudness / 10 ** (NOISE_DB / 20)
    dice = random.Random(seed)
    return array(
        "h", (max(-32768, min(32767, round(sample + dice.gauss(0, level)))) for sample in samples)
    ).tobytes()


async def said_by_agent(synthesizer: EspeakSynthesizer, text: str, speed: float) -> bytes:
    resampler = Resampler(WIRE_RATE, SPEECH_RATE)
    out = [resampler.convert(chunk.pcm) async for chunk in synthesizer.speak(text, speed=speed)]
    return b"".join([LEAD, *out, resampler.flush()])


async def measure_fact(
    fact: Fact,
    book: Phrases,
    pairs: tuple[str, ...],
    recognizer: PocketSphinxRecognizer,
    synthesizer: EspeakSynthesizer,
    repeats: int,
) -> Row:
    row = Row(fact.value)
    pcm = LEAD + audio(fact.statement)
    heard = await recognize(recognizer, pcm, book.caller_grammar)
    row.caller_grammar_ok, row.caller_fit = heard.text == fact.statement.text, heard.confidence or 0.0
    row.free_speech = (await recognize(recognizer, pcm)).text
    for repeat in range(repeats):
        spoken = await said_by_agent(synthesizer, fact.answer, SPEEDS[repeat % len(SPEEDS)])
        spoken = noisy(spoken, seed=repeat)
        answer = (await recognize(recognizer, spoken, book.answer_grammar)).text
        if answer != fact.answer:
            row.answer_errors += 1
            row.mistaken_for.append(answer)
        row.answer_errors_any_pair += (await recognize(recognizer, spoken, pairs)).text != fact.answer
    return row


def word_errors(expected: str, got: str) -> tuple[int, int]:
    """(substitutions + insertions + deletions, words expected): the numerator and base of the word error rate."""
    want, have = words_of(expected), words_of(got)
    costs = list(range(len(have) + 1))
    for at, word in enumerate(want, 1):
        diagonal, costs[0] = costs[0], at
        for to, other in enumerate(have, 1):
            diagonal, costs[to] = costs[to], min(costs[to] + 1, costs[to - 1] + 1, diagonal + (word != other))
    return costs[-1], len(want)


async def finish_ms(recognizer: PocketSphinxRecognizer, phrase: Phrase, grammar: tuple[str, ...]) -> float:
    """Milliseconds from the last frame at real pace to the transcript."""
    stream = recognizer.stream(lambda text: None, grammar=grammar)
    pcm = LEAD + audio(phrase)
    start = time.perf_counter()
    for number, at in enumerate(range(0, len(pcm), FRAME_BYTES), 1):
        stream.push(pcm[at : at + FRAME_BYTES])
        await asyncio.sleep(max(0.0, start + number * 0.02 - time.perf_counter()))
    end = time.perf_counter()
    await stream.finish()
    return (time.perf_counter() - end) * 1000


async def measure_times(recognizer: PocketSphinxRecognizer, book: Phrases) -> dict[str, dict[str, float]]:
    phrases = [*book.phrases, *(fact.statement for fact in book.facts[:4])]
    result = {}
    for mode, grammar in (("grammar", book.caller_grammar), ("free", ())):
        took = [await finish_ms(recognizer, phrase, grammar) for phrase in phrases]
        start = time.perf_counter()
        for phrase in phrases:
            await recognize(recognizer, audio(phrase), grammar)
        spent = time.perf_counter() - start
        seconds = sum(len(audio(phrase)) for phrase in phrases) / (2 * SPEECH_RATE)
        result[mode] = {
            "utterances": len(took),
            "finish_p50_ms": round(median(took), 1),
            "finish_max_ms": round(max(took), 1),
            "real_time_factor": round(spent / seconds, 4),
        }
    return result


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def show(rows: list[Row]) -> None:
    print(f"{'fact':16} {'caller':7} {'fit':5} {'errors':7} {'any pair':9} free speech")
    for row in rows:
        ok = "ok" if row.caller_grammar_ok else "WRONG"
        mistaken = f"   answer heard as {row.mistaken_for}" if row.mistaken_for else ""
        print(
            f"{row.fact:16} {ok:7} {row.caller_fit:.2f}  {row.answer_errors:<7} "
            f"{row.answer_errors_any_pair:<9} {row.free_speech}{mistaken}"
        )


async def measure(repeats: int) -> dict[str, object]:
    book = load()
    words = sorted({fact.value.rsplit(" ", 1)[0] for fact in book.facts})
    numbers = sorted({fact.value.rsplit(" ", 1)[1] for fact in book.facts})
    pattern = book.facts[0].answer.replace(book.facts[0].value, "{}")
    pairs = tuple(pattern.format(f"{word} {number}") for word in words for number in numbers)
    recognizer, synthesizer = PocketSphinxRecognizer(workers=2), EspeakSynthesizer()
    await recognizer.start()
    await synthesizer.start()
    try:
        gate = asyncio.Semaphore(2)

        async def one(fact: Fact) -> Row:
            async with gate:
                return await measure_fact(fact, book, pairs, recognizer, synthesizer, repeats)

        rows = list(await asyncio.gather(*(one(fact) for fact in book.facts)))
        lines = {
            phrase.text: (await recognize(recognizer, LEAD + audio(phrase), book.caller_grammar)).text
            for phrase in book.phrases
        }
        free = {
            phrase.text: (await recognize(recognizer, LEAD + audio(phrase))).text for phrase in book.phrases
        }
        times = await measure_times(recognizer, book)
    finally:
        await recognizer.close()
        await synthesizer.close()
    show(rows)
    return summary(book, rows, lines, free, times, repeats, len(pairs))


def summary(
    book: Phrases,
    rows: list[Row],
    lines: dict[str, str],
    free: dict[str, str],
    times: dict[str, dict[str, float]],
    repeats: int,
    pair_count: int,
) -> dict[str, object]:
    free_all = {**free, **{f.statement.text: r.free_speech for f, r in zip(book.facts, rows, strict=True)}}
    errors = [word_errors(expected, got) for expected, got in free_all.items()]
    return {
        "commit": commit(),
        "machine": {"platform": platform.platform(), "python": platform.python_version()},
        "caller_voice": book.voice,
        "repeats": repeats,
        "noise_db": NOISE_DB,
        "speeds": SPEEDS,
        "caller_recordings": len(free_all),
        "caller_grammar_errors": sum(not row.caller_grammar_ok for row in rows)
        + sum(expected != got for expected, got in lines.items()),
        "free_speech_word_error_rate": round(sum(e for e, _ in errors) / sum(n for _, n in errors), 4),
        "free_speech_phrases": free,
        "answers": len(rows) * repeats,
        "answer_errors": sum(row.answer_errors for row in rows),
        "answer_grammar_size": len(rows),
        "answer_errors_any_pair": sum(row.answer_errors_any_pair for row in rows),
        "any_pair_grammar_size": pair_count,
        "times": times,
        "facts": [asdict(row) for row in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="answers per fact (default 3)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the JSON goes")
    arguments = parser.parse_args()
    result = asyncio.run(measure(arguments.repeats))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "facts"}, indent=2))
    if result["answer_errors"] or result["caller_grammar_errors"]:
        sys.exit("misheard: drop those facts from phrases.toml, run tools/make_recordings.py and this again")


if __name__ == "__main__":
    main()
