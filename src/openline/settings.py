"""Every setting as a row: name with unit, default, what it does. Read once at the start, validated together.

Sources, later ones win: defaults, environment (``OPENLINE_<NAME>``), command line (``--name``). Nothing else
in the package reads the environment. ``openline doctor`` shows the effective values, secrets as "set".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from openline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective settings of one process. Fields are described by ``ROWS``."""

    host: str = "127.0.0.1"
    port: int = 8765
    data: Path = Path("openline-data")
    model: str = "embedded"
    record: str = "on"
    record_days: int = 7
    record_max_mb: int = 10_240
    api_keys: Mapping[str, str] = field(default_factory=dict)
    allowed_origins: frozenset[str] = frozenset()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    sessions_max: int = 2_000
    resume_window_ms: int = 30_000
    park_for_ms: int = 7 * 24 * 3600 * 1000
    silence_budget_ms: int = 8_000
    drain_s: float = 20.0
    recognizer: str = "auto"
    recognizer_workers: int = 2
    recognizer_grammar: Path | None = None
    synthesizer: str = "auto"
    llm_url: str = ""
    llm_model: str = ""
    llm_api: str = "auto"
    llm_key_env: str = ""
    llm_key: str = ""
    llm_lanes: int = 1
    llm_sockets: int = 8
    llm_store: str = "off"
    stt_url: str = ""
    stt_model: str = "whisper-1"
    stt_key_env: str = ""
    tts_url: str = ""
    tts_model: str = "tts-1"
    tts_voice: str = ""
    tts_key_env: str = ""
    llm_reasoning: str = "off"
    upstream_url: str = "https://api.openai.com/v1"
    upstream_key_env: str = "OPENAI_API_KEY"
    upstream_transcription: str = "gpt-4o-mini-transcribe"
    upstream_rotate_s: float = 55 * 60
    node: str = "node-1"
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. ``parse`` raises ValueError whose text says what was expected."""

    name: str
    parse: Callable[[str], Any]
    says: str
    is_secret: bool = False
    in_help: bool = True

    @property
    def variable(self) -> str:
        return f"OPENLINE_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.strip().lstrip("-").isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"seconds from {low:g} to {high:g}")
        return value

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text

    return parse


def _word(text: str) -> str:
    if not text or any(c.isspace() for c in text):
        raise ValueError("a word without blanks")
    return text


def _keys(text: str) -> dict[str, str]:
    """``name=key,name2=key2``; a bare key is named "key1", "key2", …"""
    keys: dict[str, str] = {}
    for number, part in enumerate((p.strip() for p in text.split(",") if p.strip()), 1):
        name, equals, key = part.partition("=")
        keys[name if equals else f"key{number}"] = key if equals else name
    return keys


def _origins(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


ROWS: tuple[Row, ...] = (
    Row("host", _word, "Address to bind. Anything but loopback needs an API key."),
    Row("port", _number(0, 65_535), "Port for WebSocket, HTTP API and console; 0 takes a free one."),
    Row("data", Path, "Directory of the log, recordings and notes; made if missing; one gateway at a time."),
    Row(
        "model",
        _word,
        "Who answers: 'embedded' (no key, no network), 'openai/NAME' (that speech model at upstream_url), or "
        "'scripted' for tests and benchmarks.",
    ),
    Row("record", _choice("on", "off"), "Record calls (lossless, by reference from the log)."),
    Row("record_days", _number(0, 36_500), "Days that recordings are kept."),
    Row(
        "record_max_mb",
        _number(1, 10_000_000),
        "Megabytes that all recordings may take; the oldest go first.",
    ),
    Row("api_keys", _keys, "API keys as 'name=key,…'; clients send one as Bearer.", is_secret=True),
    Row("allowed_origins", _origins, "Web origins that may connect without a key of their own, by comma."),
    Row("tls_cert", Path, "PEM certificate: serve wss and https."),
    Row("tls_key", Path, "PEM key of the certificate."),
    Row("sessions_max", _number(1, 1_000_000), "Sessions in memory at once; one more is refused."),
    Row(
        "resume_window_ms",
        _number(0, 3_600_000),
        "How long a dropped call stays detached before it is parked.",
    ),
    Row(
        "park_for_ms",
        _number(0, 10**11),
        "How long a parked session waits before it ends; 0 ends it at once.",
    ),
    Row(
        "silence_budget_ms",
        _number(500, 600_000),
        "Silence of a session that should speak before it recovers; one that writes has at least 330,000.",
    ),
    Row("drain_s", _seconds(0, 3_600), "Seconds that running replies get at SIGTERM."),
    Row(
        "recognizer",
        _choice("auto", "pocketsphinx", "scripted"),
        "Speech recognition of the embedded pipeline.",
    ),
    Row("recognizer_workers", _number(1, 64), "Recognizer processes (about 100 MB each)."),
    Row("recognizer_grammar", Path, "File with one phrase a line: only these are recognised, and reliably."),
    Row("synthesizer", _choice("auto", "espeak", "tone"), "Voice of the embedded pipeline."),
    Row(
        "llm_url",
        _word,
        "Base URL of an OpenAI-compatible language model, such as http://127.0.0.1:11434/v1.",
    ),
    Row("llm_model", _word, "Its model's name as that server knows it."),
    Row(
        "llm_api",
        _choice("auto", "responses-ws", "responses", "chat"),
        "How it is spoken to: the Responses WebSocket, Responses or Chat Completions over HTTP.",
    ),
    Row("llm_key_env", _word, "Environment variable that holds its key (such as OPENAI_API_KEY)."),
    Row("llm_key", _word, "Its key itself; OPENLINE_LLM_KEY keeps it off the command line.", is_secret=True),
    Row(
        "llm_lanes",
        _number(1, 16),
        "Lanes (stream_id) of one socket; 1 for servers without them, OpenAI has 16.",
    ),
    Row("llm_sockets", _number(1, 1_000), "Most sockets to it."),
    Row(
        "llm_store",
        _choice("on", "off"),
        "Let the provider store responses, so that a lost socket costs less.",
    ),
    Row(
        "llm_reasoning",
        _choice("on", "off"),
        "Have a reasoning model's thoughts sent along, encrypted, and give them back when a context is sent whole.",
    ),
    Row(
        "stt_url",
        _word,
        "Base URL of a server with OpenAI's /audio/transcriptions: it hears for the pipeline.",
    ),
    Row("stt_model", _word, "Its model's name."),
    Row("stt_key_env", _word, "Environment variable with its key; read again at each request."),
    Row("tts_url", _word, "Base URL of a server with OpenAI's /audio/speech: it speaks for the pipeline."),
    Row("tts_model", _word, "Its model's name."),
    Row("tts_voice", _word, "Its voice; left out, the one that the session names."),
    Row("tts_key_env", _word, "Environment variable with its key; read again at each request."),
    Row("upstream_url", _word, "Base URL of an OpenAI Realtime server, for model 'openai/NAME'."),
    Row("upstream_key_env", _word, "Environment variable with its key; read again at each connect."),
    Row("upstream_transcription", _word, "Its model that writes down what users say."),
    Row(
        "upstream_rotate_s",
        _seconds(1, 86_400),
        "Age at which a connection to it is renewed at a quiet moment; below its cap (OpenAI: 60 min).",
    ),
    Row("node", _word, "Name of this node in the log."),
    Row(
        "log_level",
        _choice("debug", "info", "warning", "error"),
        "How much is logged. Never what people say.",
    ),
)
BY_NAME: dict[str, Row] = {row.name: row for row in ROWS}


def load(environment: Mapping[str, str], given: Mapping[str, str | None]) -> Settings:
    """Settings from ``environment`` and from ``given`` command-line texts (None: not given).

    Raises ConfigError that names the setting, where it came from, what was expected and what came.
    """
    values: dict[str, Any] = {}
    for row in ROWS:
        text, source = environment.get(row.variable), row.variable
        if given.get(row.name) is not None:
            text, source = given[row.name], row.flag
        if text is None:
            continue
        try:
            values[row.name] = row.parse(text)
        except ValueError as error:
            shown = "" if row.is_secret else f"; got '{text}'"
            raise ConfigError(
                f"{source}: expected {error}{shown}.", hint="See 'openline serve --help'."
            ) from None
    settings = replace(Settings(), **values)
    if settings.llm_key_env:
        key = environment.get(settings.llm_key_env, "")
        if not key:
            raise ConfigError(f"llm_key_env: the variable '{settings.llm_key_env}' is not set.")
        settings = replace(settings, llm_key=key)
    if settings.llm_url and not settings.llm_model:
        raise ConfigError("llm_model: expected the model's name beside llm_url.", hint="Add --llm-model.")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigError("tls_cert and tls_key: expected both or neither.")
    return settings


def shown(settings: Settings) -> dict[str, str]:
    """The effective values for people; secrets only as "set" or "not set"."""
    result: dict[str, str] = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if BY_NAME[item.name].is_secret:
            result[item.name] = f"set ({len(value)})" if value else "not set"
        elif isinstance(value, frozenset):
            result[item.name] = ", ".join(sorted(value)) or "none"
        else:
            result[item.name] = "not set" if value is None else str(value)
    return result
