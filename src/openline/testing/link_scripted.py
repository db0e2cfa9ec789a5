"""``ScriptedLink``: a speech-to-speech model in memory that does exactly what its script says.

For tests, demos and the gateway's model ``scripted``. Everything it does later it does through
one scheduler (an asyncio loop, or a virtual one), so the same script gives the same calls in the same
order. What it does wrong on purpose is named in ``scripts.Failure``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from openline.core.model import Item, SessionConfig, Usage
from openline.errors import LinkError, LinkRejected, LinkUnavailable
from openline.ports import LinkSink, ModelLink, ResponseStart
from openline.testing.emulated_net import Scheduler
from openline.testing.scripts import (
    FRAME_SAMPLES,
    RATE,
    Heard,
    ReplyPlan,
    Script,
    ScriptContext,
    ScriptedEars,
    ToolUse,
    echo_script,
    tone,
)
from openline.types import CallId, ItemId, ResponseId, SessionId

KEPT_LINKS = 256
"""Links a factory remembers for assertions; a gateway that serves ``scripted`` for days must not grow."""
Step = tuple[int, Callable[[], None]]
"""Milliseconds to wait, then what to do."""


@dataclass(frozen=True, slots=True)
class TurnScript:
    """How the link hears. ``texts``: what turns say whose audio carries no text, in order, then the last again.

    ``silence_ms`` None: the session's ``turn_detection.silence_duration_ms``. ``final_delay_ms``: from the
    end of a turn (or a commit) to its text. ``fails``: turns (by ordinal from 0) that end in ``turn_failed``.
    """

    texts: tuple[str, ...] = ("hello",)
    start_ms: int = 60
    silence_ms: int | None = None
    final_delay_ms: int = 10
    fails: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class LinkCall:
    """What the runtime asked of the link, for assertions: the method's name and the id it was about."""

    method: str
    subject: str = ""


class ScriptedLink(ModelLink):
    """One scripted connection. ``calls`` lists what was asked of it, audio excepted (``audio_bytes``).

    ``opens``: "yes", or how ``open`` fails: "unavailable" or "rejected". Positions of speech count from the
    first sample appended to *this* link.
    """

    def __init__(
        self,
        session: SessionId,
        *,
        script: Script = echo_script,
        turns: TurnScript = TurnScript(),
        scheduler: Scheduler | None = None,
        opens: Literal["yes", "unavailable", "rejected"] = "yes",
    ) -> None:
        self.session = session
        self.calls: list[LinkCall] = []
        self.audio_bytes = 0
        self.items: list[Item] = []
        self.is_open = False
        self._script = script
        self._turns = turns
        self._scheduler = scheduler
        self._opens = opens
        self._sink: LinkSink | None = None
        self._config = SessionConfig()
        self._ears = ScriptedEars(start_ms=turns.start_ms)
        self._is_playing = False
        self._responses = 0
        self._turn_count = 0
        self._settling: deque[Callable[[], None]] = deque()
        self._running: set[ResponseId] = set()
        self._deaf: set[ResponseId] = set()

    # ------------------------------------------------------------------------------------------ lifecycle

    async def open(self, sink: LinkSink, config: SessionConfig, items: Sequence[Item]) -> None:
        self.calls.append(LinkCall("open"))
        if self._opens != "yes":
            raise _refusal(permanent=self._opens == "rejected")
        self._scheduler = self._scheduler or asyncio.get_running_loop()
        self._sink = sink
        self.items = list(items)
        self.is_open = True
        self._configure(config)
        sink.opened()

    async def close(self) -> None:
        self.calls.append(LinkCall("close"))
        self._shut()

    def lose(self, *, permanent: bool = False) -> None:
        """Break the link now, as a provider or a network would."""
        sink = self._sink
        self._shut()
        if sink is not None:
            sink.lost(_refusal(permanent=permanent))

    def _shut(self) -> None:
        self.is_open = False
        self._sink = None
        self._running.clear()
        self._deaf.clear()

    # ----------------------------------------------------------------------------------------------- ears

    def append_audio(self, pcm: bytes, frame: bytes = b"") -> None:
        self.audio_bytes += len(pcm)
        heard = self._ears.push(pcm)
        if heard is not None and self._sink is not None and self._config.turn_detection is not None:
            self._hear(heard, self._sink)

    def replay_audio(self, pcm: bytes) -> None:
        for at in range(0, len(pcm), FRAME_SAMPLES * 2):  # its ears know frames, not streams
            self.append_audio(pcm[at : at + FRAME_SAMPLES * 2])

    def commit_audio(self, item_id: ItemId, start: int, end: int) -> None:
        self.calls.append(LinkCall("commit_audio", item_id))
        text = self._ears.take_text()
        self._ears.forget()
        self._settle_turn(item_id, text, start, end)

    def clear_audio(self) -> None:
        self.calls.append(LinkCall("clear_audio"))
        self._ears.forget()

    def playing(self, is_playing: bool) -> None:
        self._is_playing = is_playing

    def _hear(self, heard: Heard, sink: LinkSink) -> None:
        match heard.kind:
            case "maybe":
                if self._is_playing:
                    sink.speech_paused(True)
            case "not_speech":
                if self._is_playing:
                    sink.speech_paused(False)
            case "started":
                sink.speech_started(max(0, heard.at - self._padding_samples))
            case "stopped":
                sink.speech_stopped(heard.at)
                self._settle_turn(None, heard.text, max(0, heard.onset - self._padding_samples), heard.at)

    def _settle_turn(self, item_id: ItemId | None, carried: str, start: int, end: int) -> None:
        ordinal = self._turn_count
        self._turn_count += 1
        texts = self._turns.texts
        text = carried or texts[min(ordinal, len(texts) - 1)]

        def settle() -> None:
            if self._sink is None:
                return
            if ordinal in self._turns.fails:
                self._sink.turn_failed(item_id, "scripted")
                return
            if item_id is None:
                self._sink.user_partial(text)
            self._sink.turn_final(item_id, text, 1.0, start, end)

        # Timers of one moment come in no promised order; turns must.
        self._settling.append(settle)
        self._later(self._turns.final_delay_ms, lambda: self._settling.popleft()())

    @property
    def _padding_samples(self) -> int:
        detection = self._config.turn_detection
        return 0 if detection is None else detection.prefix_padding_ms * RATE // 1000

    # ------------------------------------------------------------------------------------ session changes

    def update(self, config: SessionConfig) -> None:
        self.calls.append(LinkCall("update"))
        self._configure(config)

    def _configure(self, config: SessionConfig) -> None:
        self._config = config
        if self._turns.silence_ms is not None:
            self._ears.silence_ms = self._turns.silence_ms
        elif config.turn_detection is not None:
            self._ears.silence_ms = config.turn_detection.silence_duration_ms

    def add_item(self, item: Item, previous: ItemId | None) -> None:
        self.calls.append(LinkCall("add_item", item.id))
        places = [place for place, known in enumerate(self.items, 1) if known.id == previous]
        self.items.insert(places[0] if places else len(self.items), item)

    def remove_item(self, item_id: ItemId) -> None:
        self.calls.append(LinkCall("remove_item", item_id))
        self.items = [item for item in self.items if item.id != item_id]

    def truncate(self, item_id: ItemId, audio_end_ms: int, text: str) -> None:
        self.calls.append(LinkCall("truncate", item_id))

    # ------------------------------------------------------------------------------------------ responses

    def start_response(self, start: ResponseStart) -> None:
        self.calls.append(LinkCall("start_response", start.response_id))
        context = ScriptContext(self._responses, tuple(start.items), start.request, start.config)
        self._responses += 1
        plan = self._script(context)
        if plan.failure == "never_answers":
            return
        self._running.add(start.response_id)
        if plan.failure == "late_finish":
            self._deaf.add(start.response_id)
        is_audio = (start.request.modality or start.config.modality) == "audio"
        self._walk(start.response_id, self._steps(start.response_id, plan, is_audio))

    def cancel_response(self, response: ResponseId) -> None:
        self.calls.append(LinkCall("cancel_response", response))
        if response not in self._deaf:
            self._running.discard(response)

    def _walk(self, response: ResponseId, steps: Iterator[Step]) -> None:
        """Do the next step after its delay, as long as the response is wanted."""
        step = next(steps, None)
        if step is None:
            self._running.discard(response)
            return
        delay_ms, act = step

        def do() -> None:
            if response in self._running:
                act()
                self._walk(response, steps)

        self._later(delay_ms, do)

    def _steps(self, response: ResponseId, plan: ReplyPlan, is_audio: bool) -> Iterator[Step]:
        sink = self._sink
        if sink is None:
            return
        index = 0
        if plan.text:
            yield from self._message_steps(sink, response, plan, is_audio)
            index = 1
        for offset, use in enumerate(plan.calls):
            delay_ms = plan.first_delay_ms if index + offset == 0 else plan.chunk_delay_ms
            yield from _call_steps(sink, response, index + offset, use, delay_ms)
        usage = Usage(input_tokens=10, output_tokens=max(1, len(plan.text.split())))
        yield plan.finish_delay_ms, lambda: sink.response_finished(response, usage, plan.reason)
        if plan.failure == "finish_twice":
            yield 1, lambda: sink.response_finished(response, usage, plan.reason)

    def _message_steps(
        self, sink: LinkSink, response: ResponseId, plan: ReplyPlan, is_audio: bool
    ) -> Iterator[Step]:
        yield plan.first_delay_ms, lambda: sink.message_started(response, 0)
        has_audio = is_audio and plan.failure != "no_audio"
        chunks = list(_chunks(plan, has_audio))
        # A reply shorter than the place of its failure fails at its end: a failure that was asked for happens.
        fails_at = min(plan.fail_at_chunk, len(chunks) - 1)
        for number, (text, pcm, text_end) in enumerate(chunks):
            if number == fails_at and plan.failure in ("lost", "rejected", "failed", "stalls"):
                yield plan.chunk_delay_ms, lambda: self._break(sink, response, plan)
                return
            yield plan.chunk_delay_ms if number else 0, _delta(sink, response, text, pcm, text_end)
            if plan.failure == "unknown_response":
                yield 0, _delta(sink, ResponseId("resp_nobody_asked_for"), text, pcm, text_end)
        yield 0, lambda: sink.message_finished(response, 0)
        if plan.failure == "message_finish_twice":
            yield 1, lambda: sink.message_finished(response, 0)

    def _break(self, sink: LinkSink, response: ResponseId, plan: ReplyPlan) -> None:
        # Whatever the way, nothing more comes for this response: the walk stops here.
        self._running.discard(response)
        match plan.failure:
            case "lost" | "rejected":
                self.lose(permanent=plan.failure == "rejected")
            case "failed":
                sink.response_finished(response, Usage(), "failed:server_error")
            case _:
                assert plan.failure == "stalls"

    def _later(self, delay_ms: int, do: Callable[[], None]) -> None:
        assert self._scheduler is not None, "expected an open link; call open() first"
        self._scheduler.call_later(delay_ms / 1000, lambda: do() if self.is_open else None)


class ScriptedLinkFactory:
    """The ``LinkFactory`` of the double; ``links`` are the last KEPT_LINKS made, oldest first.

    ``opens`` says how the k-th link opens; after the last entry they open normally.
    """

    def __init__(
        self,
        script: Script = echo_script,
        *,
        turns: TurnScript = TurnScript(),
        scheduler: Scheduler | None = None,
        opens: Sequence[Literal["yes", "unavailable", "rejected"]] = (),
    ) -> None:
        self.links: deque[ScriptedLink] = deque(maxlen=KEPT_LINKS)
        self.made = 0
        self._script = script
        self._turns = turns
        self._scheduler = scheduler
        self._opens = opens

    def __call__(self, session: SessionId, config: SessionConfig) -> ModelLink:
        ordinal = self.made
        self.made += 1
        link = ScriptedLink(
            session,
            script=self._script,
            turns=self._turns,
            scheduler=self._scheduler,
            opens=self._opens[ordinal] if ordinal < len(self._opens) else "yes",
        )
        self.links.append(link)
        return link


def _refusal(*, permanent: bool) -> LinkError:
    if permanent:
        return LinkRejected("the scripted link was told to refuse for good")
    return LinkUnavailable("the scripted link was told to break")


def _chunks(plan: ReplyPlan, has_audio: bool) -> Iterator[tuple[str, bytes, int]]:
    """Pieces of a reply: the words that begin in it, its PCM, and the characters spoken at its end."""
    count = max(1, -(-plan.spoken_ms // plan.chunk_ms))
    words = plan.text.split(" ")
    pieces: list[list[str]] = [[] for _ in range(count)]
    for number, word in enumerate(words):
        pieces[number * count // len(words)].append(word if number == 0 else " " + word)
    samples = plan.chunk_ms * RATE // 1000
    pcm = tone(samples, plan.tone_hz) if has_audio and plan.spoken_ms else b""
    left = plan.spoken_ms * RATE // 1000
    for number, piece in enumerate(pieces):
        spoken = len(plan.text) * (number + 1) // count
        yield "".join(piece), pcm[: min(samples, left) * 2], spoken
        left -= samples


def _delta(sink: LinkSink, response: ResponseId, text: str, pcm: bytes, text_end: int) -> Callable[[], None]:
    def give() -> None:
        if text:
            sink.text_delta(response, 0, text)
        if pcm:
            sink.audio_delta(response, 0, pcm, text_end)

    return give


def _call_steps(
    sink: LinkSink, response: ResponseId, index: int, use: ToolUse, delay_ms: int
) -> Iterator[Step]:
    # Derived from the response's id, which is unique in the session: the same script gives the same ids.
    call_id = CallId(f"call_{response.removeprefix('resp_')}_{index}")
    half = len(use.arguments) // 2
    yield delay_ms, lambda: sink.call_started(response, index, call_id, use.name)
    yield 1, lambda: sink.call_delta(response, index, use.arguments[:half])
    yield 1, lambda: sink.call_delta(response, index, use.arguments[half:])
    yield 0, lambda: sink.call_finished(response, index, use.arguments)
