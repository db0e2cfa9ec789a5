"""``llm.LLM`` of LiveKit Agents as a language model.

Each turn sends its whole context. Tools go over as raw schemas and are never run by the plugin. Two things their
interface has no word for: why a reply ended, and how long it may be. See ``PluginModel`` for what stands in for them.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from livekit.agents import llm

from openline.adapters.livekit_plugins.plugin import Surroundings, label_of, link_error, once
from openline.core.model import ToolSpec, Usage
from openline.errors import LinkUnavailable
from openline.ports import LanguageModel, ModelDone, ModelEvent, ModelRequest, TextDelta, ToolCallDone
from openline.wire.items import JsonObject
from openline.wire.model_options import told_form
from openline.wire.responses_client import entries, pending_outputs

EXTRAS_MAX = 4_096
"""Tool calls whose provider's extras are remembered; one is a few hundred bytes."""


class PluginModel(LanguageModel):
    """``stall_s``: seconds of silence within a reply, and to connect. The plugin is closed with this.

    ``limit_as``: the plugin's request parameter for the most output tokens, such as ``max_completion_tokens`` of
    OpenAI's; a reply that used that many is told as cut. Without it a limited reply is ended here after so many
    pieces of text, each of which is a token or more. Provider extras of tool calls (Google's thought signatures) are
    kept in memory and given back with the call. Raises ConfigError for what is no ``llm.LLM``.
    """

    def __init__(self, plugin: llm.LLM[Any], *, stall_s: float = 60.0, limit_as: str = "") -> None:
        self.label = label_of("language model", plugin, llm.LLM, "thinks")
        self.name: str = plugin.label
        self._plugin = plugin
        self._stall_s = stall_s
        self._limit_as = limit_as
        self._around = Surroundings()
        self._extras: OrderedDict[str, dict[str, Any]] = OrderedDict()

    async def start(self) -> None:
        await self._around.open()

    async def close(self) -> None:
        await self._around.close(self._plugin.aclose)

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream one reply. Raises LinkRejected, LinkUnavailable. ``aclose`` closes the connection at once."""
        if not self._around.is_open:
            raise LinkUnavailable(f"{self.label}: the model was not started.", hint="Await start() first.")
        stream = self._ask(request)
        stop_after = None if self._limit_as else request.max_output_tokens
        usage: llm.CompletionUsage | None = None
        texts, calls = 0, 0
        try:
            while (chunk := await self._next(stream)) is not None:
                usage = chunk.usage or usage
                if chunk.delta is None:
                    continue
                if chunk.delta.content:
                    if texts == stop_after:
                        yield ModelDone(Usage(output_tokens=texts), "max_output_tokens")
                        return
                    texts += 1
                    yield TextDelta(chunk.delta.content)
                for call in chunk.delta.tool_calls:
                    yield self._call(calls, call, request)
                    calls += 1
        finally:
            await stream.aclose()
        if usage is None and not texts and not calls:
            raise LinkUnavailable(f"{self.label}: the reply ended before it began.", cause="empty")
        spent = _usage(usage)
        limit = request.max_output_tokens if self._limit_as else None
        is_cut = limit is not None and spent.output_tokens >= limit
        yield ModelDone(spent, "max_output_tokens" if is_cut else "completed")

    def _ask(self, request: ModelRequest) -> llm.LLMStream:
        options: dict[str, Any] = {}
        if request.tools:
            options["tool_choice"] = _choice(request.tool_choice)
            if not request.parallel_tool_calls:  # Only then: many providers refuse what they do not know.
                options["parallel_tool_calls"] = False
        if self._limit_as and request.max_output_tokens is not None:
            options["extra_kwargs"] = {self._limit_as: request.max_output_tokens}
        # With tool choice "none" some plugins still offer the tools: none are shown then.
        tools = () if options.get("tool_choice") == "none" else request.tools
        if not tools:
            options.pop("tool_choice", None)
            options.pop("parallel_tool_calls", None)
        try:
            return self._around.call(
                self._plugin.chat,
                chat_ctx=self._context(request),
                tools=_tools(tools),
                conn_options=once(self._stall_s),
                **options,
            )
        except Exception as error:
            raise link_error(self.label, error) from None

    async def _next(self, stream: llm.LLMStream) -> llm.ChatChunk | None:
        try:
            async with asyncio.timeout(self._stall_s):
                return await anext(stream, None)
        except Exception as error:
            raise link_error(self.label, error) from None

    def _call(self, index: int, call: llm.FunctionToolCall, request: ModelRequest) -> ToolCallDone:
        call_id = call.call_id or f"call_{request.response_id}_{index}"
        if call.extra:
            self._extras[call_id] = dict(call.extra)
            if len(self._extras) > EXTRAS_MAX:
                self._extras.popitem(last=False)
        return ToolCallDone(index, call_id, call.name, call.arguments or "{}")

    def _context(self, request: ModelRequest) -> llm.ChatContext:
        known = entries(request.items)
        items: list[llm.ChatItem] = []
        # A form is asked for in words: each provider's plugin has its own setting for it, or none.
        told = [request.instructions, told_form(request.text_format) if request.text_format else ""]
        if any(told):
            items.append(llm.ChatMessage(role="system", content=["\n\n".join(filter(None, told))]))
        items.extend(map(self._item, [*known, *pending_outputs(known)]))
        return llm.ChatContext(items)

    def _item(self, entry: JsonObject) -> llm.ChatItem:
        match entry["type"]:
            case "function_call":
                values = {name: entry[name] for name in ("call_id", "name", "arguments")}
                return llm.FunctionCall(**values, extra=self._extras.get(str(entry["call_id"]), {}))
            case "function_call_output":
                return llm.FunctionCallOutput(
                    call_id=entry["call_id"], output=entry["output"], is_error=False
                )
            case _:
                return llm.ChatMessage(role=entry["role"], content=_content(entry["content"]))


def _content(parts: Any) -> list[Any]:
    return [
        llm.ImageContent(image=part["image_url"], inference_detail=part["detail"])
        if part["type"] == "input_image"
        else part.get("refusal") or part["text"]  # LiveKit has no refusals: it is something that was said.
        for part in parts
    ]


def _tools(tools: Iterable[ToolSpec]) -> list[Any]:
    return [
        llm.function_tool(
            _never_run,
            raw_schema={
                "name": tool.name,
                "description": tool.description,
                "parameters": json.loads(tool.parameters),
            },
        )
        for tool in tools
    ]


async def _never_run(raw_arguments: dict[str, object]) -> None:
    """The session runs tools; a plugin only shows them to its model."""


def _choice(tool_choice: str) -> Any:
    choice = json.loads(tool_choice)
    if isinstance(choice, dict):
        return {"type": "function", "function": {"name": choice.get("name", "")}}
    return choice


def _usage(usage: llm.CompletionUsage | None) -> Usage:
    if usage is None:
        return Usage()
    return Usage(usage.prompt_tokens, usage.completion_tokens, usage.prompt_cached_tokens)
