"""Chat Completions as its client speaks it: for Ollama, llama.cpp, vLLM and every other server that has it.

The conversation is built from the same entries as for the Responses API (``responses_client``), and the
reader yields the same pieces, so that the adapter is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from openline.core.model import Usage
from openline.wire.items import JsonObject
from openline.wire.model_options import chat_options
from openline.wire.responses_client import (
    Asked,
    CallEnd,
    CallPiece,
    End,
    Piece,
    Refusal,
    Text,
    failure,
    pending_outputs,
    to_usage,
)

_REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


def chat_body(asked: Asked, known: Sequence[JsonObject]) -> JsonObject:
    """A streaming request. Usage is asked for in the stream; servers that know no such option ignore it."""
    found: JsonObject = {
        "model": asked.model,
        "messages": _messages(asked.instructions, [*known, *pending_outputs(known)]),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if asked.tools:
        found["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": msgspec.Raw(tool.parameters.encode()),
                },
            }
            for tool in asked.tools
        ]
        found["tool_choice"] = _choice(asked.tool_choice)
        if (
            not asked.parallel_tool_calls
        ):  # Only then: llama.cpp and older servers refuse what they do not know.
            found["parallel_tool_calls"] = False
    found |= chat_options(asked.options, asked.text_format)
    if asked.max_output_tokens is not None:
        found["max_tokens"] = asked.max_output_tokens  # The old name: it is the one that all servers take.
    return found


def _choice(tool_choice: str) -> object:
    choice = msgspec.json.decode(tool_choice)
    if isinstance(choice, dict):
        return {"type": "function", "function": {"name": choice.get("name", "")}}
    return choice


def _messages(instructions: str, known: Sequence[JsonObject]) -> list[JsonObject]:
    """Calls join the assistant message before them; their outputs follow at once, as the API demands."""
    outputs = {e["call_id"]: e["output"] for e in known if e["type"] == "function_call_output"}
    found: list[JsonObject] = [{"role": "system", "content": instructions}] if instructions else []
    calls: list[JsonObject] = []

    def close_calls() -> None:
        for call in calls:
            found.append({"role": "tool", "tool_call_id": call["id"], "content": outputs.get(call["id"], "")})
        calls.clear()

    for entry in known:
        if entry["type"] == "function_call":
            function = {"name": entry["name"], "arguments": entry["arguments"]}
            call: JsonObject = {"id": entry["call_id"], "type": "function", "function": function}
            if not calls and (not found or found[-1]["role"] != "assistant"):
                found.append({"role": "assistant", "content": None})
            calls.append(call)
            found[-1]["tool_calls"] = list(calls)
        elif entry["type"] == "message":
            close_calls()
            found.append(_message(entry["role"], entry["content"]))
    close_calls()
    return found


def _message(role: object, parts: object) -> JsonObject:
    assert isinstance(parts, list)
    refusals = [part["refusal"] for part in parts if part["type"] == "refusal"]
    if not refusals:
        return {"role": role, "content": _content(parts)}
    # As text too: most servers of this API know no ``refusal``, and some refuse a message without content.
    words = [part["text"] for part in parts if part["type"] != "refusal"]
    return {"role": role, "content": " ".join([*words, *refusals]), "refusal": " ".join(refusals)}


def _content(parts: list[Any]) -> object:
    if all(part["type"] != "input_image" for part in parts):
        return " ".join(part["text"] for part in parts)
    return [
        {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part["detail"]}}
        if part["type"] == "input_image"
        else {"type": "text", "text": part["text"]}
        for part in parts
    ]


@dataclass(slots=True)
class _Call:
    index: int
    call_id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class ChatReader:
    """Reads one stream of chunks. ``finish`` must be called at ``[DONE]`` or at the end of the body.

    ``name``: makes call ids where a server gives none, so it must differ between responses.
    """

    name: str
    is_over: bool = False
    has_output: bool = False
    _calls: dict[int, _Call] = field(default_factory=dict)
    _reason: str = ""
    _usage: Usage = field(default_factory=Usage)

    def feed(self, chunk: JsonObject) -> list[Piece]:
        if self.is_over:
            return []
        if "error" in chunk:
            self.is_over = True
            return [failure(chunk)]
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._usage = to_usage(usage)
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        pieces: list[Piece] = []
        if isinstance(choice, dict):
            self._reason = choice.get("finish_reason") or self._reason
            delta = choice.get("delta")
            if isinstance(delta, dict):
                pieces = self._delta(delta)
        self.has_output = self.has_output or bool(pieces)
        return pieces

    def _delta(self, delta: JsonObject) -> list[Piece]:
        pieces: list[Piece] = []
        content, refusal = delta.get("content"), delta.get("refusal")
        if isinstance(content, str) and content:
            pieces.append(Text(content))
        if isinstance(refusal, str) and refusal:
            pieces.append(Refusal(refusal))
        calls = delta.get("tool_calls")
        for place, call in enumerate(calls if isinstance(calls, list) else []):
            if isinstance(call, dict):
                pieces += self._call(place, call)
        return pieces

    def _call(self, place: int, delta: JsonObject) -> list[Piece]:
        at, function = delta.get("index", place), delta.get("function")
        if not isinstance(at, int) or not isinstance(function, dict):
            return []
        name, arguments, call_id = function.get("name"), function.get("arguments"), delta.get("id")
        call = self._calls.get(at)
        if call is None:
            number = len(self._calls)
            own = call_id if isinstance(call_id, str) and call_id else f"call_{self.name}_{number}"
            call = self._calls[at] = _Call(number, own, name if isinstance(name, str) else "")
        if not isinstance(arguments, str) or not arguments:
            return []
        call.arguments += arguments
        return [CallPiece(call.index, call.call_id, call.name, arguments)]

    def finish(self) -> list[Piece]:
        """The calls' ends and the end; nothing when an error was it, or when the stream broke off."""
        if self.is_over or not self._reason:
            return []
        self.is_over = True
        ends: list[Piece] = [
            CallEnd(call.index, call.call_id, call.name, call.arguments or "{}")
            for call in self._calls.values()
        ]
        reason = _REASONS.get(self._reason, "completed")
        if reason == "max_output_tokens":
            ends = []  # The last call is cut; a half of its arguments is no call.
        return [*ends, End(self._usage, reason)]  # type: ignore[arg-type]  # narrowed by the table above
