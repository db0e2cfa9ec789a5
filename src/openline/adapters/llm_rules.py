"""The embedded language model: rules in a file, no key, no network. It says itself that it is small."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path

from openline.core.model import Usage
from openline.ports import ModelDone, ModelEvent, ModelRequest, TextDelta, ToolCallDelta, ToolCallDone
from openline.rules.engine import PlannedCall, RuleEngine
from openline.rules.match import load_rules

_PIECE = re.compile(r"\s*\S{1,8}")
_ARGUMENT_PIECE = 24
"""Characters of arguments in one delta: several for most calls, so that consumers meet real streams."""


class RulesModel:
    """Port ``LanguageModel`` over ``rules/``: deterministic, stateless, shared by all sessions.

    ``path``: another data file of the layout of ``rules/rules.toml``. ``token_delay_s``: seconds between
    pieces of text, for demonstrations; at 0 it only yields to the loop. Raises ConfigError for a bad file.
    """

    name = "rules"

    def __init__(self, path: Path | str | None = None, *, token_delay_s: float = 0.0) -> None:
        self._engine = RuleEngine(load_rules(path))
        self._delay_s = token_delay_s

    async def start(self) -> None:
        """Nothing to load: the file was read when the model was made."""

    async def close(self) -> None:
        """Nothing to free; running generations go on."""

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """The reply in pieces of at most eight letters, then each call in pieces, then ``ModelDone``.

        Usage is an estimate, 4 tokens for 3 words. At ``max_output_tokens`` the text ends in its midst;
        a call that does not fit is not begun. Cancellation and ``aclose`` leave nothing behind.
        """
        reply = self._engine.decide(request)
        room = request.max_output_tokens
        spent = words = 0
        is_cut = False
        for piece in _PIECE.findall(reply.text):
            words += piece[0].isspace() or words == 0
            cost = _tokens_for(words)
            if room is not None and cost > room:
                is_cut = True
                break
            spent = cost
            yield TextDelta(piece)
            await asyncio.sleep(self._delay_s)
        for index, call in enumerate(() if is_cut else reply.calls):
            cost = estimate_tokens(call.arguments) + 1
            if room is not None and spent + cost > room:
                is_cut = True
                break
            spent += cost
            for event in _call_events(index, call, request):
                yield event
                await asyncio.sleep(0)
        usage = Usage(input_tokens=_input_tokens(request), output_tokens=spent)
        yield ModelDone(usage, "max_output_tokens" if is_cut else "completed")


def estimate_tokens(text: str) -> int:
    """About as many tokens as a language model would count: 4 for 3 words, rounded up."""
    return _tokens_for(len(text.split()))


def _tokens_for(words: int) -> int:
    return -(-words * 4 // 3)


def _input_tokens(request: ModelRequest) -> int:
    texts = [request.instructions]
    texts += [text for item in request.items for text in (item.text, item.arguments, item.output)]
    texts += [text for tool in request.tools for text in (tool.description, tool.parameters)]
    return sum(estimate_tokens(text) for text in texts)


def _call_events(index: int, call: PlannedCall, request: ModelRequest) -> list[ModelEvent]:
    # Derived, not drawn: the same request must give the same events, and response ids are unique.
    call_id = f"call_{request.response_id.removeprefix('resp_')}_{index}"
    pieces = [
        call.arguments[at : at + _ARGUMENT_PIECE] for at in range(0, len(call.arguments), _ARGUMENT_PIECE)
    ]
    deltas: list[ModelEvent] = [ToolCallDelta(index, call_id, call.name, piece) for piece in pieces]
    return [*deltas, ToolCallDone(index, call_id, call.name, call.arguments)]
