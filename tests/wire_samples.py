"""What the tests of the wire share: an example of every fact, views, and values of any stored type."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from openline.core import facts as f
from openline.core.facts import Fact
from openline.core.model import (
    AudioRange,
    Item,
    Limits,
    Part,
    Problem,
    ResponseRequest,
    SessionConfig,
    ToolSpec,
    Usage,
)
from openline.core.value import Value, replace
from openline.types import CallId, ConnectionId, Epoch, ItemId, ResponseId, Seq, SessionId, TurnId
from openline.wire.render import View, render

SESSION = SessionId("sess_1")
STOCK = View(opted_in=False, conn=ConnectionId("c1"), role="speaker", strict=False, session=SESSION)
OPTED_IN = dataclasses.replace(STOCK, opted_in=True)
TRANSCRIBES = dataclasses.replace(STOCK, transcribes=True)
CONN = ConnectionId("c1")
TURN, RESP, CALL = TurnId("turn_1"), ResponseId("resp_1"), CallId("call_1")
USER_ITEM = Item(
    ItemId("item_u"),
    "message",
    "user",
    "user",
    content=(Part("input_audio", "two bolts please", AudioRange(24_000, 60_000)),),
    turn_id=TURN,
)
TYPED_ITEM = Item(ItemId("item_t"), "message", "user", "user", content=(Part("input_text", "hello"),))
SPOKEN = Item(
    ItemId("item_a"), "message", "assistant", "assistant", content=(Part("output_audio", "Good morning."),)
)
WRITTEN = Item(
    ItemId("item_w"), "message", "assistant", "assistant", content=(Part("output_text", "Good morning."),)
)
CALL_ITEM = Item(
    ItemId("item_c"), "function_call", "assistant", call_id="call_1", name="stock", arguments='{"part":"M6"}'
)
OUTPUT_ITEM = Item(ItemId("item_o"), "function_call_output", "tool", call_id="call_1", output="42")
MCP_ITEM = Item(
    ItemId("item_m"),
    "mcp_call",
    "assistant",
    call_id="call_1",
    name="stock",
    arguments='{"part":"M6"}',
    server_label="openline",
)
CONFIG = SessionConfig(
    instructions="You run the workshop.",
    tools=(ToolSpec("stock", "How many are there"), ToolSpec("order", runner="gateway")),
)
OUT_OF_BAND = ResponseRequest(conversation="none", metadata=(("topic", "mood"),))


def begun(item: Item) -> Item:
    """The item as core has it while it is being made."""
    content = tuple(replace(part, text="") for part in item.content)
    return replace(item, status="in_progress", content=content, arguments="")


def created(request: ResponseRequest = ResponseRequest(), modality: Any = "audio") -> f.ResponseCreated:
    return f.ResponseCreated(RESP, request, modality, "marin", None, TURN, 1, CONN, "")


def added(item: Item, modality: Any = "audio", *, in_conversation: bool = True) -> f.OutputItemAdded:
    previous = ItemId("item_u") if in_conversation else None
    return f.OutputItemAdded(RESP, 0, begun(item), modality, previous, in_conversation)


def item_done(
    item: Item, modality: Any = "audio", *, in_conversation: bool = True, shown_end: int | None = None
) -> f.OutputItemDone:
    if shown_end is not None:
        item = replace(item, status="incomplete")
    previous = ItemId("item_u") if in_conversation else None
    return f.OutputItemDone(RESP, 0, item, modality, previous, in_conversation, 900, shown_end)


def done(
    status: Any = "completed",
    reason: str = "",
    problem: Problem | None = None,
    output: tuple[Item, ...] = (SPOKEN,),
    *,
    in_conversation: bool = True,
    metadata: tuple[tuple[str, str], ...] = (),
) -> f.ResponseDone:
    return f.ResponseDone(
        RESP,
        status,
        reason,
        problem,
        output,
        "audio",
        "marin",
        100,
        metadata,
        in_conversation,
        Usage(30, 20, 10, 5, 15),
    )


def committed(text: str | None = "two bolts please", item: Item | None = USER_ITEM) -> f.TurnCommitted:
    texts = () if item else (TYPED_ITEM.id,)
    return f.TurnCommitted(TURN, text, 0.8, item, None, texts, CONN, prepares=False)


def every_fact() -> list[Fact]:
    """At least one of each kind, and the variants that are rendered differently."""
    settled = replace(MCP_ITEM, output="42")
    failed = replace(MCP_ITEM, error="no such part")
    return [
        f.SessionStarted(SESSION, "default", CONFIG, Limits(), False, True, 1),
        f.SessionForked(SESSION, Seq(7), ItemId("item_1")),
        f.SessionOwned(Epoch(2), "node-a"),
        f.SessionUpdated(CONFIG, CONN, "cmd_1"),
        f.SessionParked("closed", 1_790_000_000_000),
        f.SessionEnded("hang_up"),
        f.ConnectionAttached(CONN, "speaker", True, False, True, 500, "c0ffee", "decaf"),
        f.ConnectionDetached(CONN, "lost", 1006),
        f.LinkRequested(1, 1),
        f.LinkOpened(1, "embedded"),
        f.LinkLost(1, "link_unavailable", False, "closed_1011"),
        f.LinkRenewed(2, "age"),
        f.SpeechStarted(TURN, USER_ITEM.id, 24_000, 1_000),
        f.SpeechStopped(TURN, USER_ITEM.id, 60_000, 2_500),
        f.InputCleared(CONN, ""),
        f.InputTimedOut(USER_ITEM.id, 1_000, 2_500),
        committed(),
        committed(text=None),
        committed(item=None),
        f.TurnTranscribed(TURN, USER_ITEM.id, "two bolts please", None, 1_500, ""),
        f.TurnTranscribed(TURN, USER_ITEM.id, "", None, 1_500, "timeout"),
        f.TurnAbandoned(TURN, USER_ITEM.id, "no_speech"),
        f.TurnContinued(TURN, USER_ITEM.id, 2),
        f.ItemCreated(TYPED_ITEM, None, CONN, "cmd_2"),
        f.ItemCreated(OUTPUT_ITEM, TYPED_ITEM.id, CONN, ""),
        f.ItemCreated(CALL_ITEM, TYPED_ITEM.id, CONN, ""),
        f.ItemDeleted(TYPED_ITEM.id, CONN, ""),
        f.ItemTruncated(SPOKEN.id, 0, 400, CONN, ""),
        f.ItemHeard(SPOKEN.id, 400, 4, "paced", True),
        f.ResponseHeld(ResponseRequest(instructions="a secret plan", origin="tool")),
        f.ReplyDropped(TURN, "agent"),
        created(),
        created(OUT_OF_BAND, "text"),
        added(SPOKEN),
        added(WRITTEN, "text"),
        added(CALL_ITEM),
        added(MCP_ITEM),
        f.OutputItemProgressed(SPOKEN.id, "Good", 300, 200),
        item_done(SPOKEN),
        item_done(WRITTEN, "text"),
        item_done(SPOKEN, shown_end=4),
        item_done(CALL_ITEM),
        item_done(CALL_ITEM, shown_end=0),
        item_done(MCP_ITEM),
        item_done(MCP_ITEM, shown_end=0),
        f.ResponseGenerated(RESP, Usage(), "completed"),
        done(),
        done("cancelled", "turn_detected", metadata=(("topic", "mood"),)),
        done("incomplete", "crash"),
        done("incomplete", "max_output_tokens", output=()),
        done("failed", "", Problem("insufficient_quota", "No quota left.", "server_error")),
        done("failed", "silence", in_conversation=False),
        f.ToolRequested(CALL, MCP_ITEM.id, "stock", "gateway", "sess_1:call_1"),
        f.ToolStarted(CALL, 1, Epoch(1), "sess_1:call_1"),
        f.ToolSettled(CALL, 1, "succeeded", settled, USER_ITEM.id),
        f.ToolSettled(CALL, 1, "succeeded", MCP_ITEM, USER_ITEM.id),
        f.ToolSettled(CALL, 1, "failed", failed, USER_ITEM.id),
        f.ToolSettled(CALL, 1, "succeeded", None, None),
        f.SegmentRecorded("user", 0, 24_000, "user.0.wav", "ab" * 32),
        f.MediaDropped("spool", 40, "oldest"),
        f.SilenceExceeded(RESP, 8_000, "retry"),
        f.SilenceExceeded(None, 8_000, "give_up"),
    ]


def frames_of(facts: Sequence[Fact], view: View = STOCK) -> list[dict[str, Any]]:
    """The frames of facts that follow each other from seq 1, as a client reads them."""
    shown: list[dict[str, Any]] = []
    for seq, fact in enumerate(facts, 1):
        for _, frame in render(fact, epoch=Epoch(1), seq=Seq(seq), view=view):
            shown.append(msgspec.json.decode(frame))
    return shown


def kinds_of(facts: Sequence[Fact], view: View = STOCK) -> list[str]:
    return [frame["type"] for frame in frames_of(facts, view)]


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that the log stores: values, tuples, unions, literals, text, numbers."""
    kind = getattr(kind, "__supertype__", kind)
    if isinstance(kind, type) and issubclass(kind, Value):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{name: values_of(hints[name]) for name in kind.__struct_fields__})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values_of, arguments))
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    return {
        str: st.text(max_size=20),
        int: st.integers(-(2**63), 2**63 - 1),
        bool: st.booleans(),
        float: st.floats(allow_nan=False),
        type(None): st.none(),
    }[kind]
