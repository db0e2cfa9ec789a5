"""Inputs: their stored names, and the defaults that old logs lean on."""

from __future__ import annotations

from openline.core import inputs as i
from openline.core.model import AudioRange, Item, Limits, ResponseRequest, SessionConfig, Usage
from openline.types import ConnectionId, Epoch, ItemId, ResponseId, Seq, SessionId

NAMES = """
    OpenSession TakeOwnership Attach Detach EndSession TimePassed UpdateConfig CreateItem DeleteItem TruncateItem
    CommitAudio ClearAudio CreateResponse CancelResponse LinkOpened LinkLost LinkRenewed SpeechStarted SpeechStopped
    TurnFinal TurnFailed ReplyPrepared MessageStarted MessageProgress MessageFinished CallStarted CallFinished
    ResponseGenerated ResponseReleased ResponseFailed Heard ToolSettled SegmentRecorded MediaDropped
"""


def test_names_under_which_inputs_are_stored_stay() -> None:
    assert set(NAMES.split()) <= set(i.INPUTS)
    assert all(kind.__name__ == name for name, kind in i.INPUTS.items())


def test_defaults() -> None:
    conn, nobody = ConnectionId("caller"), ConnectionId("")
    nobody_yet = SessionId("")
    config, audio, request = SessionConfig(), AudioRange(0, 2_400), ResponseRequest()
    assert i.OpenSession(SessionId("s"), "t", Epoch(1), "n", config) == i.OpenSession(
        SessionId("s"), "t", Epoch(1), "n", config, Limits(), False, True, 1, nobody_yet, Seq(0), None
    )
    assert i.TakeOwnership(Epoch(2), "n").recorded_until == 0
    assert i.Attach(conn) == i.Attach(conn, "speaker", False, False, False, 500, "", "")
    assert i.Detach(conn) == i.Detach(conn, 1006, False, ())
    assert i.EndSession("r") == i.EndSession("r", nobody, "", ())
    assert i.TimePassed() == i.TimePassed(0)
    assert i.UpdateConfig(config) == i.UpdateConfig(config, nobody, "")
    item = Item(ItemId("i"), "message", "user", "user")
    assert i.CreateItem(item) == i.CreateItem(item, None, nobody, "")
    assert i.DeleteItem(ItemId("i")) == i.DeleteItem(ItemId("i"), nobody, "")
    assert i.TruncateItem(ItemId("i"), 0, 9) == i.TruncateItem(ItemId("i"), 0, 9, nobody, "")
    assert i.CommitAudio(audio) == i.CommitAudio(audio, nobody, "")
    assert i.ClearAudio() == i.ClearAudio(nobody, "")
    assert i.CreateResponse(request) == i.CreateResponse(request, nobody, "")
    assert i.CancelResponse() == i.CancelResponse(None, (), "client_cancelled", nobody, "")
    assert i.LinkOpened(1) == i.LinkOpened(1, "", False)
    assert i.LinkLost(1, "c") == i.LinkLost(1, "c", False, (), "")
    assert i.SpeechStarted(1, 0) == i.SpeechStarted(1, 0, ())
    assert i.ResponseGenerated(1, ResponseId("r"), Usage()).reason == "completed"
