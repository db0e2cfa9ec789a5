"""The model's side of the upstream link: responses asked for, and what comes of them.

A response is asked for with our id in its metadata; ``response.created`` brings that back with the provider's.
What comes late, twice, or for a response that nobody asked for is dropped and counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from openline.adapters.link_openai_realtime.items import Command, Conversation
from openline.core.audio import BYTES_PER_MS
from openline.core.model import AudioFormat, Usage
from openline.ports import LinkSink, ResponseStart
from openline.types import CallId, ItemId, ResponseId
from openline.wire import upstream
from openline.wire.items import JsonObject
from openline.wire.model_options import told_form

CANCEL_WAIT_S = 2.0
"""How long a cancelled response may keep the conversation busy before the next one is asked for regardless."""
BUSY_RETRIES = 3
DEAD_KEPT = 64
"""Ids of responses that are over; their late events are known for what they are."""
Later = Callable[[float, Callable[[], None]], object]


@dataclass(slots=True)
class _Output:
    kind: Literal["message", "call", "other"]
    theirs: str
    call_id: str = ""
    name: str = ""
    ours: ItemId | None = None
    has_text: bool = False
    audio_bytes: int = 0
    is_started: bool = False
    is_done: bool = False


@dataclass(slots=True)
class _Reply:
    """One response. ``theirs`` once the provider has named it, and with it ``format``, which it keeps; a cancelled
    one only waits for its end."""

    ours: ResponseId
    is_default: bool
    is_spoken: bool
    wish: JsonObject
    event_id: str = ""
    theirs: str = ""
    is_cancelled: bool = False
    retries: int = 0
    format: AudioFormat = "pcm"
    outputs: dict[int, _Output] = field(default_factory=dict)


class Replies:
    """``later`` calls back after seconds; ``dropped`` counts events that belonged to nothing; ``speaks`` is told the
    format of the audio that the sink is given next, when it changes."""

    __slots__ = (
        "_asked",
        "_command",
        "_conversation",
        "_dead",
        "_echoes",
        "_later",
        "_live",
        "_sink",
        "_speaks",
        "_spoken_format",
        "_waiting",
        "_writer",
        "dropped",
        "format",
    )

    def __init__(
        self,
        command: Command,
        later: Later,
        sink: LinkSink,
        conversation: Conversation,
        speaks: Callable[[AudioFormat], None],
    ) -> None:
        self._command = command
        self._speaks = speaks
        self._later = later
        self._sink = sink
        self._conversation = conversation
        self._asked: dict[ResponseId, _Reply] = {}
        self._live: dict[str, _Reply] = {}
        self._dead: OrderedDict[str, None] = OrderedDict()
        self._waiting: list[_Reply] = []
        self._writer: _Reply | None = None
        """The one response that writes to the provider's conversation, cancelled ones included."""
        self._echoes = False
        """Whether this server has shown that it gives metadata back."""
        self.format: AudioFormat = "pcm"
        """Of responses that begin from now on and do not say theirs."""
        self._spoken_format: AudioFormat = "pcm"
        self.dropped = 0

    # -- asking

    def start(self, start: ResponseStart) -> None:
        request = start.request
        is_spoken = (request.modality or start.config.modality) == "audio"
        wish = wish_of(start, self._conversation.known)
        reply = _Reply(start.response_id, request.conversation == "auto", is_spoken, wish)
        if reply.is_default and self._writer is not None:
            # A cancel and the next create may cross: asking before the end is an error there (F1).
            self._waiting.append(reply)
        else:
            self._ask(reply)

    def _ask(self, reply: _Reply) -> None:
        if reply.is_default:
            self._writer = reply
        self._asked[reply.ours] = reply
        reply.event_id = self._command("response.create", response=reply.wish)

    def cancel(self, ours: ResponseId) -> None:
        """Stop it; its end frees the conversation, or the clock does."""
        for waiting in [reply for reply in self._waiting if reply.ours == ours]:
            self._waiting.remove(waiting)
        reply = self._asked.get(ours) or next((r for r in self._live.values() if r.ours == ours), None)
        if reply is None or reply.is_cancelled:
            return
        reply.is_cancelled = True
        if reply.theirs:
            self._command("response.cancel", response_id=reply.theirs)
        elif reply.is_default:
            self._command("response.cancel")
        if reply.is_default:
            self._later(CANCEL_WAIT_S, lambda: self._give_up(reply))

    def _give_up(self, reply: _Reply) -> None:
        if self._writer is reply:
            self._release(reply)

    def _release(self, reply: _Reply) -> None:
        """The conversation is free again."""
        if self._asked.get(reply.ours) is reply:
            del self._asked[reply.ours]
        if self._writer is reply:
            self._writer = None
            if self._waiting:
                self._ask(self._waiting.pop(0))

    def named(self, ours: ResponseId, output_index: int, item_id: ItemId) -> None:
        """The session's id for an output: by it truncate, delete and tool results find the provider's item."""
        reply = next((r for r in self._live.values() if r.ours == ours and not r.is_cancelled), None)
        output = reply.outputs.get(output_index) if reply is not None else None
        if output is None:
            return
        output.ours = item_id
        if output.kind == "call":
            self._conversation.bind_call(item_id, output.theirs, output.call_id)
        else:
            self._conversation.bind(item_id, output.theirs)

    def refused(self, event_id: str | None, code: str) -> bool:
        """An error answers a response.create of ours; without an id it does if only one is unanswered."""
        reply = next((r for r in self._asked.values() if r.event_id == event_id), None)
        if reply is None and event_id is None and len(self._asked) == 1:
            reply = next(iter(self._asked.values()))
        if reply is None:
            return False
        if (
            code == "conversation_already_has_active_response"
            and not reply.is_cancelled
            and reply.retries < BUSY_RETRIES
        ):
            reply.retries += 1
            self._later(CANCEL_WAIT_S / 4, lambda: self._ask_again(reply))
            return True
        was_cancelled = reply.is_cancelled
        self._release(reply)
        if not was_cancelled:
            self._sink.response_finished(reply.ours, Usage(), f"failed:{code}")
        return True

    def _ask_again(self, reply: _Reply) -> None:
        if self._asked.get(reply.ours) is not reply:
            return
        if reply.is_cancelled:
            self._release(reply)
        else:
            self._ask(reply)

    # -- what comes: responses

    def created(self, event: upstream.ResponseCreated) -> None:
        theirs = event.response.id
        if theirs in self._live or theirs in self._dead:
            return
        reply = self._asked_by(event.response)
        if reply is None:
            # Nobody asked for it: a server that replies by itself. It must not write into the conversation.
            self.dropped += 1
            self._bury(theirs)
            self._command("response.cancel", response_id=theirs)
            return
        self._bind(reply, theirs, upstream.reply_format(event.response))

    def _asked_by(self, response: upstream.Reply) -> _Reply | None:
        """Which request of ours a response answers: by our metadata; by order where a server forgets that."""
        told = (response.metadata or {}).get(upstream.RESPONSE_KEY)
        if isinstance(told, str):
            reply = self._asked.get(ResponseId(told))
            self._echoes = self._echoes or reply is not None
            return reply
        return None if self._echoes else next(iter(self._asked.values()), None)

    def _bind(self, reply: _Reply, theirs: str, told: AudioFormat | None = None) -> None:
        del self._asked[reply.ours]
        reply.theirs = theirs
        reply.format = told or self.format
        self._live[theirs] = reply
        if reply.is_cancelled:
            self._command("response.cancel", response_id=theirs)

    def _bury(self, theirs: str) -> None:
        self._dead[theirs] = None
        while len(self._dead) > DEAD_KEPT:
            self._dead.popitem(last=False)

    def _reply(self, theirs: str, *, begins: bool = False) -> _Reply | None:
        """The response that an event is about, if it may still say something. ``begins``: it may be its first."""
        reply = self._live.get(theirs)
        if reply is None and begins and theirs not in self._dead and len(self._asked) == 1:
            # Its response.created comes late: the only one that was asked for is meant.
            reply = next(iter(self._asked.values()))
            self._bind(reply, theirs)
        if reply is None or reply.is_cancelled:
            self.dropped += 1
            return None
        return reply

    def done(self, event: upstream.ResponseDone) -> None:
        theirs = event.response.id
        if theirs not in self._live and theirs not in self._dead:
            asked = self._asked_by(event.response)
            if asked is not None:
                self._bind(asked, theirs)
        reply = self._live.pop(theirs, None)
        self._bury(theirs)
        if reply is None:
            self.dropped += 1
            return
        for output in reply.outputs.values():
            if output.ours is not None:
                self._conversation.generated(output.ours, _made_ms(reply, output))
        if not reply.is_cancelled:
            for index, output in reply.outputs.items():
                self._finish(reply, index, output, None)
            reason = outcome(reply.is_spoken, list(reply.outputs.values()), event.response)
            self._sink.response_finished(reply.ours, upstream.usage_of(event.response), reason)
        self._release(reply)

    # -- what comes: outputs

    def added(self, event: upstream.ItemAdded) -> None:
        reply = self._reply(event.response_id, begins=True)
        if reply is None or event.output_index in reply.outputs:
            return
        item = event.item
        kinds: dict[str, Literal["message", "call"]] = {"message": "message", "function_call": "call"}
        output = _Output(kinds.get(item.type, "other"), item.id, item.call_id or item.id, item.name or "")
        reply.outputs[event.output_index] = output
        self._begin(reply, event.output_index, output)

    def _begin(self, reply: _Reply, index: int, output: _Output) -> None:
        if output.kind == "message":
            output.is_started = True
            self._sink.message_started(reply.ours, index)
        elif output.kind == "call" and output.name:  # Some servers name it only at its end.
            output.is_started = True
            self._sink.call_started(reply.ours, index, CallId(output.call_id), output.name)

    def _message(self, theirs: str, index: int) -> tuple[_Reply, _Output] | None:
        reply = self._live.get(theirs)
        output = reply.outputs.get(index) if reply is not None and not reply.is_cancelled else None
        if reply is None or output is None or output.is_done or output.kind != "message":
            self.dropped += 1
            return None
        return reply, output

    def audio(self, event: upstream.AudioDelta) -> None:
        found = self._message(event.response_id, event.output_index)
        if found is not None:
            reply, output = found
            data = event.delta
            if reply.format == "pcm" and len(data) % 2:
                data = data[:-1]
            output.audio_bytes += len(data)
            if reply.format != self._spoken_format:
                self._spoken_format = reply.format
                self._speaks(reply.format)
            self._sink.audio_delta(reply.ours, event.output_index, data, 0)

    def text(self, event: upstream.TextDelta | upstream.TranscriptDelta) -> None:
        self._say(event.response_id, event.output_index, event.delta)

    def text_done(self, event: upstream.TextDone) -> None:
        self._say_whole(event.response_id, event.output_index, event.text)

    def transcript_done(self, event: upstream.TranscriptDone) -> None:
        self._say_whole(event.response_id, event.output_index, event.transcript)

    def _say_whole(self, theirs: str, index: int, text: str | None) -> None:
        """The whole text counts where no piece of it came before."""
        reply = self._live.get(theirs)
        output = reply.outputs.get(index) if reply is not None else None
        if text and output is not None and not output.has_text:
            self._say(theirs, index, text)

    def _say(self, theirs: str, index: int, text: str) -> None:
        found = self._message(theirs, index)
        if found is not None and text:
            reply, output = found
            output.has_text = True
            self._sink.text_delta(reply.ours, index, text)

    def arguments(self, event: upstream.ArgumentsDelta) -> None:
        reply = self._reply(event.response_id)
        output = reply.outputs.get(event.output_index) if reply is not None else None
        if reply is not None and output is not None and output.is_started and not output.is_done:
            self._sink.call_delta(reply.ours, event.output_index, event.delta)

    def arguments_done(self, event: upstream.ArgumentsDone) -> None:
        reply = self._reply(event.response_id)
        output = reply.outputs.get(event.output_index) if reply is not None else None
        if reply is not None and output is not None:
            output.name = output.name or event.name or ""
            self._finish(reply, event.output_index, output, event.arguments)

    def item_done(self, event: upstream.ItemDone) -> None:
        reply = self._reply(event.response_id)
        output = reply.outputs.get(event.output_index) if reply is not None else None
        if reply is None or output is None:
            return
        output.name = output.name or event.item.name or ""
        is_whole = output.kind == "message" or event.item.status != "incomplete"
        if is_whole:
            self._finish(reply, event.output_index, output, event.item.arguments)

    def _finish(self, reply: _Reply, index: int, output: _Output, arguments: str | None) -> None:
        """Its last word; a call without its arguments has none and ends with its response."""
        if output.is_done or output.kind == "other":
            return
        if output.kind == "message":
            output.is_done = True
            self._sink.message_finished(reply.ours, index)
        elif arguments is not None and output.name:
            output.is_done = True
            if not output.is_started:
                self._begin(reply, index, output)
            self._sink.call_finished(reply.ours, index, arguments or "{}")

    def made_so_far(self, item_id: ItemId) -> None:
        """Tell the conversation how long an item is by now: it is about to be cut."""
        for reply in self._live.values():
            for output in reply.outputs.values():
                if output.ours == item_id:
                    self._conversation.generated(item_id, _made_ms(reply, output))

    @property
    def is_active(self) -> bool:
        """Something was asked for and has not ended."""
        return bool(self._asked or self._live or self._waiting)


def _made_ms(reply: _Reply, output: _Output) -> int:
    return output.audio_bytes // BYTES_PER_MS[reply.format]


def outcome(is_spoken: bool, outputs: list[_Output], response: upstream.Reply) -> str:
    """How it ended. Success without anything to hear is none (failures.md A5): the caller would sit in silence."""
    reason = upstream.outcome_of(response)
    if reason != "completed":
        return reason
    if not outputs:
        return "failed:empty_response"
    messages = [output for output in outputs if output.kind == "message"]
    if is_spoken and any(output.has_text and not output.audio_bytes for output in messages):
        return "failed:no_audio"
    return reason


def wish_of(start: ResponseStart, known: dict[str, str]) -> JsonObject:
    """The ``response`` of response.create; what the request leaves open stays as the session says."""
    request, config = start.request, start.config
    pairs = list(request.metadata)[: upstream.METADATA_MAX - 1]
    wish: JsonObject = {
        "conversation": request.conversation,
        "metadata": {**dict(pairs), upstream.RESPONSE_KEY: start.response_id},
    }
    instructions = request.instructions
    if request.verbatim is not None:
        instructions = (
            "Say exactly the following text, word for word, with nothing before and nothing after it:\n"
            f"{request.verbatim}"
        )
        wish["input"], wish["tools"], wish["tool_choice"] = [], [], "none"
    else:
        if request.has_input:
            wish["input"] = upstream.input_objects(request.input + request.context, known)
        elif request.context:
            # Beside the conversation an ``input`` would replace it: the reply is told in its instructions.
            told = "\n".join(item.text for item in request.context if item.text)
            instructions = f"{config.instructions if instructions is None else instructions}\n\n{told}"
        if request.tools is not None:
            wish["tools"] = upstream.tool_objects(request.tools)
        if request.tool_choice is not None:
            wish["tool_choice"] = upstream.raw(request.tool_choice)
    if request.text_format:
        # The Realtime API has no word for it; the model can only be told.
        told = config.instructions if instructions is None else instructions
        instructions = f"{told}\n\n{told_form(request.text_format)}"
    if instructions is not None:
        wish["instructions"] = instructions
    if request.modality is not None:
        wish["output_modalities"] = [request.modality]
    if request.voice is not None:
        wish["audio"] = {"output": {"voice": request.voice}}
    if request.parallel_tool_calls not in (None, config.parallel_tool_calls):
        wish["parallel_tool_calls"] = request.parallel_tool_calls
    if request.max_output_tokens is not None:
        wish["max_output_tokens"] = request.max_output_tokens
    return wish
