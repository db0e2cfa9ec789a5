"""The nouns of a conversation: items, tools, configuration. Frozen values, no behaviour beyond reading.

Text that came from outside as JSON (tool schemas, tool arguments, opaque settings) stays JSON text
here: the core neither parses nor builds it.
"""

from __future__ import annotations

from typing import Literal

from openline.core.value import Value
from openline.types import Author, ItemId, ResponseId, TurnId

PartType = Literal[
    "input_text", "input_audio", "input_image", "output_text", "output_audio", "refusal", "reasoning"
]
ItemType = Literal["message", "function_call", "function_call_output", "mcp_call"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
Modality = Literal["audio", "text"]
AudioFormat = Literal["pcm", "pcmu", "pcma"]
"""PCM16 at 24,000 samples a second, or G.711 (µ-law, A-law) at 8,000."""
Purpose = Literal["realtime", "transcription"]
HeardSource = Literal["reported", "paced", "assumed", "client"]
"""How we know what was heard; precedence client > reported > paced > assumed (see HEARD_RANK)."""
HEARD_RANK = {source: rank for rank, source in enumerate(("assumed", "paced", "reported", "client"))}


class AudioRange(Value, frozen=True):
    """A stretch of a session's input (or output) track: samples at ``rate``, half open.

    Offsets count from the first sample of the session's track, silence included, so a range stays
    valid as a reference into the recording.
    """

    start: int
    end: int
    rate: int = 24_000

    @property
    def duration_ms(self) -> int:
        return (self.end - self.start) * 1000 // self.rate

    @property
    def start_ms(self) -> int:
        return self.start * 1000 // self.rate

    @property
    def end_ms(self) -> int:
        return self.end * 1000 // self.rate


class Part(Value, frozen=True):
    """One content part. ``text`` is the text, or the transcript of an audio part (None: not known yet).

    An ``input_image`` part carries its data URL in ``image_url``. Audio bytes are never here. A ``refusal`` is text
    by which the model declined; one that was spoken is an audio part like any other. ``reasoning`` parts come last:
    what the model thought before this item, as JSON text (``wire.reasoning``), which nobody says or is shown as text.
    """

    type: PartType
    text: str | None = None
    audio: AudioRange | None = None
    image_url: str = ""
    detail: str = ""


class Item(Value, frozen=True):
    """One entry of the conversation. ``author`` says who wrote it; it is never inferred from text.

    message: role + content. function_call / mcp_call: call_id, name, arguments (JSON text), and for
    mcp_call the server_label and, once settled, output or error. function_call_output: call_id, output.
    ``heard_ms`` is set on a spoken item that was cut: only so much of it was heard, and ``content``
    is already cut to that.
    """

    id: ItemId
    type: ItemType
    author: Author
    role: Literal["user", "assistant", "system", ""] = ""
    status: ItemStatus = "completed"
    content: tuple[Part, ...] = ()
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""
    error: str = ""
    server_label: str = ""
    heard_ms: int | None = None
    turn_id: TurnId | None = None

    @property
    def text(self) -> str:
        """All text and transcript of the content, parts joined by a blank."""
        return " ".join(part.text for part in self.content if part.text and part.type != "reasoning")

    @property
    def reasoning(self) -> tuple[str, ...]:
        """What the model thought before it, oldest first: JSON texts of reasoning items."""
        return tuple(part.text for part in self.content if part.text and part.type == "reasoning")

    @property
    def is_refusal(self) -> bool:
        return bool(self.content) and self.content[0].type == "refusal"


class ToolSpec(Value, frozen=True):
    """A function tool. ``runner``: who executes it; the client that declared it, or the gateway.

    ``recovery`` is what a restart does with a call that was started and has no outcome: ``retry``
    (idempotent), ``verify`` (ask a lookup), ``ask`` (surface as unknown). ``timeout_ms`` bounds one attempt.
    """

    name: str
    description: str = ""
    parameters: str = '{"type":"object","properties":{}}'
    runner: Literal["client", "gateway"] = "client"
    recovery: Literal["retry", "verify", "ask"] = "ask"
    timeout_ms: int = 30_000


EAGERNESS_SILENCE_MS: dict[str, int] = {"low": 1_200, "medium": 500, "auto": 500, "high": 300}
"""Silence that ends a turn under semantic_vad. OpenAI's 8/4/2 s are upper bounds for its own model to shorten; a
fixed wait that long would be unbearable, and openai-agents and LiveKit ask for semantic_vad by default."""


class TurnDetection(Value, frozen=True):
    """Who ends a turn when it is not the client. Milliseconds; ``threshold`` is a probability 0..1.

    ``type`` semantic_vad is accepted and runs as server_vad with the silence that ``eagerness`` names
    (EAGERNESS_SILENCE_MS; ``wait_ms`` says which one counts).
    ``idle_timeout_ms``: None, or the silence after a reply at which the agent speaks up by itself.
    """

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"

    @property
    def wait_ms(self) -> int:
        """Silence after which a turn is over."""
        return (
            EAGERNESS_SILENCE_MS[self.eagerness] if self.type == "semantic_vad" else self.silence_duration_ms
        )


class SessionConfig(Value, frozen=True):
    """The effective configuration of a session: what ``session.update`` changes and echoes.

    ``max_output_tokens`` None means "inf". ``tool_choice`` and ``extra`` are JSON text; ``extra`` holds
    the accepted settings that the gateway only echoes (tracing, prompt, noise reduction, …).
    ``purpose`` transcription: turns are written down and never answered; fixed when the session is made.
    ``input_format``, ``output_format``: what the speaker sends and is sent. ``context_limit`` (tokens, None for
    none): a language model is given less than the whole conversation once that is longer, and then the newest
    ``context_retained`` (0..1) of the limit.
    """

    model: str = "embedded"
    modality: Modality = "audio"
    instructions: str = ""
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = '"auto"'
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = None
    voice: str = "marin"
    speed: float = 1.0
    turn_detection: TurnDetection | None = TurnDetection()
    transcription: str = ""
    extra: str = "{}"
    purpose: Purpose = "realtime"
    input_format: AudioFormat = "pcm"
    output_format: AudioFormat = "pcm"
    context_limit: int | None = None
    context_retained: float = 1.0


class Limits(Value, frozen=True):
    """Time limits of one session, in milliseconds. Fixed when the session is made, so replay agrees.

    ``silence_budget_ms`` is a caller's, ``text_silence_ms`` that of a response nobody waits for with a telephone in
    the hand (its default is what logs without it were decided by).
    """

    resume_window_ms: int = 30_000
    detached_reply_ms: int = 15_000
    park_for_ms: int = 7 * 24 * 3600 * 1000
    silence_budget_ms: int = 8_000
    transcription_ms: int = 10_000
    prepare_reply_ms: int = 300
    text_silence_ms: int = 8_000

    def silence_ms(self, modality: Modality) -> int:
        """How long a response may show no sign of life."""
        return self.silence_budget_ms if modality == "audio" else self.text_silence_ms


class ResponseRequest(Value, frozen=True):
    """What one response is asked with; None and empty mean "as the session says".

    ``conversation`` none: out of band, writes no items. ``input``: replaces the conversation as context
    when ``has_input`` is true (an empty one means no context). ``verbatim``: speak exactly this text
    instead of asking the model. ``context`` is added by agent code for this reply only. ``text_format``: JSON text
    of the form that the text must have (``wire.model_options``), empty for any. ``model_options``: JSON text of an
    object with settings for language models that have them, empty for none.
    """

    conversation: Literal["auto", "none"] = "auto"
    modality: Modality | None = None
    instructions: str | None = None
    tools: tuple[ToolSpec, ...] | None = None
    tool_choice: str | None = None
    max_output_tokens: int | None = None
    voice: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    has_input: bool = False
    input: tuple[Item, ...] = ()
    verbatim: str | None = None
    context: tuple[Item, ...] = ()
    origin: Literal["client", "turn", "tool", "agent", "recovery"] = "client"
    output_format: AudioFormat | None = None
    text_format: str = ""
    model_options: str = ""
    parallel_tool_calls: bool | None = None


class Usage(Value, frozen=True):
    """Tokens. ``cached_tokens``, ``input_audio_tokens`` are part of the input, ``output_audio_tokens`` and
    ``reasoning_tokens`` (thought and not said) of the output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    reasoning_tokens: int = 0


class Cut(Value, frozen=True):
    """What the runtime knows of one output item at the moment it stopped playing.

    ``text``: everything generated for it so far. ``audio_ms``: audio generated. ``heard_ms`` and
    ``source``: how much was heard and how we know. ``text_end``: characters of ``text`` heard, by the
    synthesizer's marks; None when there are none (then it is cut in proportion).
    """

    item_id: ItemId
    text: str
    audio_ms: int
    heard_ms: int
    source: HeardSource
    text_end: int | None = None


class Problem(Value, frozen=True):
    """An error as the wire shows it. ``message`` holds no content of the conversation."""

    code: str
    message: str
    type: str = "invalid_request_error"
    param: str | None = None


class OutputRef(Value, frozen=True):
    """An item a response made, by reference; used in tables of the state."""

    response_id: ResponseId
    item_id: ItemId
    output_index: int
