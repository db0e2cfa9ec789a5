"""One PocketSphinx decoder in a process of its own: ``python -m openline.adapters.stt_pocketsphinx_worker``.

Started and fed by ``stt_pocketsphinx``; arguments: parent pid, niceness, partial interval in ms.
One utterance at a time: START, AUDIO…, then FINISH (answered by RESULT) or CANCEL (answered by RELEASED).
An utterance that fails is answered by FAILED and costs nothing else; the decoder stays.
"""

from __future__ import annotations

import re
import sys
import time
from collections import OrderedDict
from typing import Protocol, cast

from openline.adapters.worker_process import WorkerPort

# Gateway to worker.
START, AUDIO, FINISH, CANCEL = 1, 2, 3, 4
# Worker to gateway.
READY, PARTIAL, RESULT, RELEASED, FAILED, PROGRESS, UNUSABLE = 11, 12, 13, 14, 15, 16, 17

BYTES_PER_SECOND = 32_000
STEP_BYTES = 3_200
"""100 ms a decoder call: a cancel or a partial never waits longer than that plus its decoding."""
PROGRESS_INTERVAL_S = 0.25
MAX_GRAMMARS = 16
"""Grammars kept compiled. One of 40 phrases takes 0.3 ms to build, so a miss is cheap."""
FREE = ""
"""Name of the bundled en-us language model among the searches."""
WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


class Hypothesis(Protocol):
    hypstr: str
    score: float
    prob: float


class Decoder(Protocol):
    """The part of ``pocketsphinx.Decoder`` that we use; the wheel ships no types."""

    def start_utt(self) -> None: ...
    def process_raw(self, data: bytes) -> None: ...
    def end_utt(self) -> None: ...
    def hyp(self) -> Hypothesis | None: ...
    def n_frames(self) -> int: ...
    def get_cmn(self, update: bool = ...) -> str: ...
    def set_cmn(self, cmn: str) -> None: ...
    def lookup_word(self, word: str) -> str | None: ...
    def add_jsgf_string(self, name: str, jsgf: str) -> None: ...
    def activate_search(self, name: str | None = ...) -> None: ...
    def remove_search(self, name: str) -> None: ...


def words_of(phrase: str) -> tuple[str, ...]:
    """The words of a phrase as the dictionary spells them: lower case, no punctuation around them."""
    return tuple(WORD.findall(phrase.lower().replace("\u2019", "'")))


def jsgf(phrases: list[str]) -> str:
    """A grammar whose only sentences are ``phrases``."""
    alternatives = sorted({" ".join(words_of(phrase)) for phrase in phrases} - {""})
    return f"#JSGF V1.0; grammar g; public <g> = {' | '.join(alternatives)};"


def pack_result(text: str, confidence: float | None) -> bytes:
    return f"{'' if confidence is None else f'{confidence:.4f}'} {text}".encode()


def unpack_result(payload: bytes) -> tuple[str, float | None]:
    confidence, _, text = payload.decode().partition(" ")
    return text, float(confidence) if confidence else None


class Engine:
    """A decoder with its grammars. Each utterance starts from the same state: no speaker leaks into the next."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._fresh_cmn = decoder.get_cmn()
        self._grammars: OrderedDict[str, dict[tuple[str, ...], str]] = OrderedDict()
        self._names: dict[str, str] = {}
        self._made = 0
        self._active = FREE
        self._is_running = False

    def start(self, grammar: str) -> None:
        """Begin an utterance; ``grammar`` is phrases split by newlines, or empty for free speech.

        Raises ValueError when no phrase can be used or a word is not in the dictionary.
        """
        self.stop()
        if grammar:
            self._compile(grammar)
        if grammar != self._active:
            self._decoder.activate_search(self._names[grammar] if grammar else None)
            self._active = grammar
        self._decoder.set_cmn(self._fresh_cmn)
        self._decoder.start_utt()
        self._is_running = True

    def hear(self, pcm: bytes) -> None:
        self._decoder.process_raw(pcm)

    def text(self) -> str:
        """What has been heard so far; with a grammar it may be the beginning of a phrase."""
        hypothesis = self._decoder.hyp()
        return self._spelled(hypothesis.hypstr) if hypothesis else ""

    def finish(self) -> tuple[str, float | None]:
        """The final text and, with a grammar, how well it fits the audio, 0..1.

        Speech of the grammar was measured at 0.6–0.9, other speech that was pressed into it mostly below 0.5.
        Free speech has only the lattice posterior, which is near 0 even when every word is right: None.
        """
        self.stop()
        hypothesis = self._decoder.hyp()
        heard = hypothesis.hypstr if hypothesis is not None else ""
        if not self._active:
            return heard, None
        # When no sentence of the grammar fits, PocketSphinx gives the beginning of one; that is none of them.
        phrase = self._grammars[self._active].get(tuple(heard.split()))
        if hypothesis is None or phrase is None:
            return "", 0.0
        return phrase, min(1.0, max(0.0, hypothesis.score))

    def stop(self) -> None:
        """End a running utterance. PocketSphinx has no cheaper way out than its final passes (70–190 ms)."""
        if self._is_running:
            self._is_running = False
            self._decoder.end_utt()

    def _spelled(self, heard: str) -> str:
        """With a grammar, the phrase as the caller wrote it once all its words are there."""
        if not self._active:
            return heard
        return self._grammars[self._active].get(tuple(heard.split()), heard)

    def _compile(self, grammar: str) -> None:
        if grammar in self._grammars:
            self._grammars.move_to_end(grammar)
            return
        phrases = [phrase for phrase in grammar.split("\n") if words_of(phrase)]
        if not phrases:
            raise ValueError("the grammar has no phrase with words in it")
        unknown = {word for phrase in phrases for word in words_of(phrase)}
        unknown = {word for word in unknown if self._decoder.lookup_word(word) is None}
        if unknown:
            raise ValueError(f"not in the en-us dictionary: {', '.join(sorted(unknown)[:8])}")
        self._made += 1
        name = f"grammar{self._made}"
        self._decoder.add_jsgf_string(name, jsgf(phrases))
        self._names[grammar] = name
        self._grammars[grammar] = {words_of(phrase): phrase for phrase in phrases}
        if len(self._grammars) > MAX_GRAMMARS:
            self._forget(next(iter(self._grammars)))

    def _forget(self, grammar: str) -> None:
        if self._active == grammar:
            self._decoder.activate_search(None)
            self._active = FREE
        self._decoder.remove_search(self._names.pop(grammar))
        del self._grammars[grammar]


class Worker:
    """Turns frames into engine calls, one utterance at a time."""

    def __init__(self, port: WorkerPort, engine: Engine, partial_interval_s: float) -> None:
        self._port = port
        self._engine = engine
        self._partial_interval_s = partial_interval_s
        self._utterance = 0
        self._heard_bytes = 0
        self._partial = ""
        self._partial_at = self._progress_at = 0.0

    def run(self) -> None:
        """Serve until the gateway closes our input."""
        while frame := self._port.receive():
            kind, utterance, payload = frame
            try:
                self._handle(kind, utterance, payload)
            except (ValueError, RuntimeError) as error:
                self._utterance = 0
                self._port.send(FAILED, utterance, str(error).encode())

    def _handle(self, kind: int, utterance: int, payload: bytes) -> None:
        if kind == START:
            self._start(utterance, payload.decode())
        elif utterance != self._utterance:
            # Of an utterance that failed here; the gateway knows from FAILED. Its slot is free either way.
            return
        elif kind == AUDIO:
            self._hear(payload)
        elif kind == FINISH:
            self._finish()
        elif kind == CANCEL:
            self._release()

    def _start(self, utterance: int, grammar: str) -> None:
        self._engine.start(grammar)
        self._utterance = utterance
        self._heard_bytes = 0
        self._partial = ""
        self._partial_at = self._progress_at = time.monotonic()

    def _hear(self, pcm: bytes) -> None:
        for start in range(0, len(pcm), STEP_BYTES):
            if self._port.is_cancelled(CANCEL, self._utterance):
                return
            piece = pcm[start : start + STEP_BYTES]
            self._engine.hear(piece)
            self._heard_bytes += len(piece)
            self._report()

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._partial_at >= self._partial_interval_s:
            self._partial_at = now
            text = self._engine.text()
            if text != self._partial:
                self._partial = text
                self._port.send(PARTIAL, self._utterance, text.encode())
        if now - self._progress_at >= PROGRESS_INTERVAL_S:
            self._progress_at = now
            self._port.send(PROGRESS, self._utterance, self._heard_bytes.to_bytes(8, "little"))

    def _finish(self) -> None:
        text, confidence = self._engine.finish()
        utterance, self._utterance = self._utterance, 0
        self._port.send(RESULT, utterance, pack_result(text, confidence))

    def _release(self) -> None:
        self._engine.stop()
        utterance, self._utterance = self._utterance, 0
        self._port.send(RELEASED, utterance)


def load() -> Decoder:
    """The bundled en-us model. Raises ImportError without the wheel, RuntimeError with a broken one."""
    import pocketsphinx

    return cast(Decoder, pocketsphinx.Decoder(loglevel="FATAL"))


def main() -> None:
    niceness, partial_ms = int(sys.argv[2]), int(sys.argv[3])
    port = WorkerPort(niceness=niceness)
    try:
        engine = Engine(load())
    except (ImportError, RuntimeError, OSError) as error:
        port.send(UNUSABLE, 0, str(error).encode())
        return
    port.send(READY, 0)
    Worker(port, engine, partial_ms / 1000).run()


if __name__ == "__main__":
    main()
