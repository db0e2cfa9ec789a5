"""Facts as lines, and which of them hang together."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest

from openline.cli.chain import chain_of, gaps, spans_of
from openline.cli.facts import fact_line, seq_of, short_name, summary
from openline.cli.terminal import Terminal, columns_of
from openline.core.facts import ALL_FACTS
from openline.wire.envelope import rfc3339

Json = dict[str, Any]
START_MS = 1_790_000_000_000


def event(seq: int, kind: str, at_ms: int = 0, **data: Any) -> Json:
    return {
        "type": kind,
        "sequence": f"{seq:020d}",
        "time": rfc3339(START_MS + at_ms),
        "correlationid": "sess_0123456789abcdef",
        "data": data,
    }


def message(item_id: str, text: str) -> Json:
    return {"id": item_id, "type": "message", "content": [{"text": text}]}


CALL = {"id": "item_c", "type": "mcp_call", "name": "get_time", "arguments": "{}", "call_id": "call_1"}
LOG = [
    event(1, "openline.session.started", config={"model": "embedded"}, recorded=True),
    event(2, "openline.connection.attached", conn="conn_1", role="speaker", opted_in=True, resumable=False),
    event(3, "input_audio_buffer.speech_started", 100, turn_id="turn_1", item_id="item_1", audio_start_ms=0),
    event(4, "input_audio_buffer.speech_stopped", 1100, turn_id="turn_1", item_id="item_1", audio_end_ms=900),
    event(5, "openline.turn.committed", 1160, turn_id="turn_1", text="what time is it", confidence=0.9,
          item=message("item_1", "what time is it"), text_items=[]),
    event(6, "response.created", 1160, response_id="resp_1", turn_id="turn_1", request={"origin": "turn"}),
    event(7, "response.output_item.added", 1165, response_id="resp_1", item=CALL),
    event(8, "openline.tool.requested", 1165, call_id="call_1", item_id="item_c", name="get_time", runner="gateway"),
    event(9, "openline.tool.started", 1165, call_id="call_1", attempt=1, key="k"),
    event(10, "response.done", 1170, response_id="resp_1", status="completed", reason="", output=[CALL]),
    event(11, "openline.tool.settled", 1200, call_id="call_1", outcome="succeeded", item=CALL | {"output": "noon"}),
    event(12, "response.created", 1200, response_id="resp_2", turn_id=None, request={"origin": "tool"}),
    event(13, "response.done", 4000, response_id="resp_2", status="completed", reason="", output=[]),
    event(14, "openline.turn.committed", 9000, turn_id="turn_2", text="bye", confidence=None,
          item=message("item_9", "bye"), text_items=[]),
    event(15, "response.created", 9000, response_id="resp_3", turn_id="turn_2", request={"origin": "turn"}),
]  # fmt: skip


@pytest.mark.parametrize("wanted", ["turn_1", "item_1", "resp_1", "call_1", "item_c", "resp_2"])
def test_any_id_of_a_turn_brings_all_of_it_and_nothing_else(wanted: str) -> None:
    assert [seq_of(one) for one in chain_of(LOG, wanted)] == list(range(3, 14))


def test_another_turn_is_another_chain() -> None:
    assert [seq_of(one) for one in chain_of(LOG, "turn_2")] == [14, 15]
    assert [seq_of(one) for one in chain_of(LOG, "conn_1")] == [2]
    assert chain_of(LOG, "turn_9") == []


def test_spans_say_where_the_time_went() -> None:
    spans = [(span.name, span.ms) for span in spans_of(chain_of(LOG, "turn_1"))]
    assert spans == [
        ("speech", 1000),
        ("recognition", 60),
        ("first output", 5),
        ("response completed", 10),
        ("tool get_time", 35),
        ("response completed", 2800),
    ]


def test_a_gap_in_the_numbers_is_found() -> None:
    assert gaps(LOG) == []
    assert gaps([one for one in LOG if seq_of(one) not in (4, 5)]) == [4, 5]
    assert gaps([]) == []


def test_lines_fit_the_terminal_and_say_what_matters() -> None:
    term = Terminal(io.StringIO(), is_tty=False, colour=False, width=80)
    lines = [fact_line(term, one, with_session=True) for one in LOG]
    assert max(columns_of(line) for line in lines) <= 80
    assert "turn committed" in lines[4] and "“what time is it”" in lines[4]
    assert "89abcdef" in lines[0]


@pytest.mark.parametrize("kind", [kind.TYPE for kind in ALL_FACTS])
def test_every_fact_has_a_readable_name_and_a_line_even_without_its_fields(kind: str) -> None:
    assert " " in short_name(kind) and "." not in short_name(kind)
    assert summary(event(1, kind)) == ""


def test_a_fact_of_a_newer_version_is_shown_by_its_name() -> None:
    assert short_name("openline.approval.asked") == "openline.approval.asked"
    assert summary(event(1, "openline.approval.asked", who="ann")) == ""


def test_what_was_said_cannot_steer_the_terminal() -> None:
    said = event(1, "openline.turn.committed", turn_id="t", text="\x1b[2Jboo", confidence=None, item={})
    assert "\x1b" not in summary(said)
    assert msgspec.json.decode(msgspec.json.encode(said)) == said
