"""Audio, turns and changes of format in any order, before a provider that agrees, refuses, ignores, or says something
else first: what arrives is always in the format that the provider takes it for, all of it, in order."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import cast

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from openline.adapters.link_openai_realtime.caller import WAITING_MAX, CallerAudio, Pair
from openline.adapters.link_openai_realtime.formats import Formats
from openline.adapters.link_openai_realtime.items import Conversation
from openline.adapters.link_openai_realtime.turns import Turns
from openline.core.audio import samples_of
from openline.core.model import AudioFormat, SessionConfig
from openline.core.value import replace
from openline.ports import AudioCodec
from openline.testing.sinks import RecordingSink
from openline.types import ItemId
from openline.wire.items import JsonObject

FORMATS: tuple[AudioFormat, ...] = ("pcm", "pcmu", "pcma")
LETTER = {"pcm": 0x10, "pcmu": 0x20, "pcma": 0x30}
"""The upper half of every byte says its format, the lower which piece it is of."""


def sound(name: AudioFormat, number: int) -> bytes:
    return bytes([LETTER[name] + number % 16]) * (6 if name == "pcm" else 1)


class Marker(AudioCodec):
    """A codec that says of every byte what it is."""

    def __init__(self, name: AudioFormat) -> None:
        self._name = name

    def decode(self, data: bytes) -> bytes:
        assert all(byte & 0xF0 == LETTER[self._name] for byte in data)
        return bytes(LETTER["pcm"] + byte % 16 for byte in data for _ in range(6))

    def encode(self, pcm: bytes) -> bytes:
        assert all(byte & 0xF0 == LETTER["pcm"] for byte in pcm)
        return bytes(LETTER[self._name] + byte % 16 for byte in pcm[::6])

    def flush(self) -> bytes:
        return b""


class Provider:
    """The line and what stands at its end, at once and in order; it answers when it is told to."""

    def __init__(self) -> None:
        self.taken: Pair = ("pcm", "pcm")
        self.will = "agree"
        self.is_writable = True
        self.heard: list[int] = []
        self.answers: deque[Callable[[], None]] = deque()
        self.later_calls: list[Callable[[], None]] = []
        self.is_lost = False
        self._number = 0
        self.audio: CallerAudio

    def send(self, payload: bytes) -> None:
        event = msgspec.json.decode(payload, type=dict[str, object])
        if event["type"] != "input_audio_buffer.append":
            self.heard.append(-1)
            return
        data = msgspec.convert(event["audio"], bytes)
        for byte in data[:: 6 if self.taken[0] == "pcm" else 1]:
            assert byte & 0xF0 == LETTER[self.taken[0]], "it would be noise"
            self.heard.append(byte % 16)

    def update_session(self, session: JsonObject) -> str:
        self._number += 1
        event_id, will = f"ol_{self._number}", self.will
        audio = cast("dict[str, dict[str, dict[str, str]]]", session["audio"])
        types = [audio[side]["format"]["type"].removeprefix("audio/") for side in ("input", "output")]
        if will.startswith("agree"):
            self.taken = cast("Pair", tuple(types))
        taken = self.taken
        if will == "refuse":
            self.answers.append(lambda: self._refuse(event_id))
        else:
            told: Pair | tuple[None, None] = (None, None) if will == "agree_silently" else taken
            self.answers.append(lambda: self.audio.answered(event_id, told, is_open=True))
        return event_id

    def _refuse(self, event_id: str) -> None:
        assert self.audio.refused(event_id, "session.audio.input.format", "invalid_value", is_open=True)

    def later(self, seconds: float, do: Callable[[], None]) -> object:
        self.later_calls.append(do)
        return None

    def input_changed(self) -> None: ...

    def takes(self, formats: Pair) -> None:
        assert formats == self.taken

    def unanswered(self) -> None:
        self.is_lost = True


ACTS = st.lists(
    st.one_of(
        st.sampled_from(["audio", "audio", "audio", "commit", "answer", "other"]),
        st.tuples(
            st.sampled_from(["agree", "agree_silently", "refuse", "ignore"]),
            st.sampled_from(FORMATS),
            st.sampled_from(FORMATS),
        ),
    ),
    max_size=40,
)


def caller(line: Provider) -> CallerAudio:
    def command(kind: str, **values: object) -> str:
        line.send(b'{"type":"%b"}' % kind.encode())
        return "ol_command"

    turns = Turns(line.send, command, RecordingSink(), Conversation(command, lambda: ()))
    line.audio = CallerAudio(line, turns, Formats(Marker, "a provider"), Counter())
    line.audio.socket = line
    line.audio.may_go_straight = True
    return line.audio


@given(ACTS)
def test_the_provider_never_hears_a_format_that_it_takes_for_another(acts: list[object]) -> None:
    line = Provider()
    audio = caller(line)
    config, number, expected = SessionConfig(), 0, list[int]()
    for act in acts:
        match act:
            case "audio":
                name = audio.input_format
                data = sound(name, number)
                went = audio.straight(data, samples_of(name, data), b"")
                assert went == (name == "pcm" and not audio.is_waiting), "else it would overtake, or be noise"
                if not went:
                    audio.append(name, data, samples_of(name, data))
                expected.append(number % 16)
                number += 1
            case "commit":
                audio.then(lambda: line.send(b'{"type":"input_audio_buffer.commit"}'))
                expected.append(-1)
            case "answer" if line.answers:
                line.answers.popleft()()
            case "other":
                audio.answered("ol_probe", line.taken if not line.answers else (None, None), is_open=True)
            case (will, heard, said):
                line.will = str(will)
                config = replace(config, input_format=heard, output_format=said)
                audio.switch(config)
            case _:
                pass
    while line.answers:
        line.answers.popleft()()
    assert not audio.is_waiting and line.heard == expected
    assert audio.input_format == line.taken[0] and not line.is_lost
    for late in line.later_calls:
        late()
    assert not line.is_lost, "what was answered is not waited for"


def test_what_waits_is_bounded_and_what_is_dropped_is_counted() -> None:
    line = Provider()
    audio = caller(line)
    audio.switch(replace(SessionConfig(), input_format="pcmu"))
    for number in range(WAITING_MAX + 50):
        audio.append("pcmu", sound("pcmu", number), 3)
    assert audio._counts["dropped_audio"] == 51, "one place is the change's own"
    line.answers.popleft()()
    assert len(line.heard) == WAITING_MAX - 1
    assert audio._turns.position == 3 * (WAITING_MAX + 50), "positions go on as if it had been sent"


def test_nothing_goes_straight_where_something_else_is_to_be_done() -> None:
    line = Provider()
    audio = caller(line)
    assert audio.straight(sound("pcm", 0), 3, b"") and audio.appended == audio._turns.position == 3
    line.is_writable = False
    assert not audio.straight(sound("pcm", 1), 3, b""), "it is late, and dropped"
    audio.append_again("pcm", sound("pcm", 2), 3)
    line.is_writable = True
    assert not audio.straight(sound("pcm", 3), 3, b""), "what came all at once was not through"
    audio.append("pcm", sound("pcm", 3), 3)
    assert audio.straight(sound("pcm", 4), 3, b"")
    audio.may_go_straight = False
    assert not audio.straight(sound("pcm", 5), 3, b""), "the link keeps what is said"
    audio.may_go_straight, audio.socket = True, None
    assert not audio.straight(sound("pcm", 6), 3, b"")
    assert line.heard == [0, 2, 3, 4] and audio.appended == 6, "the link counts the others"


def test_what_came_all_at_once_fills_the_line_and_what_is_said_next_follows_it() -> None:
    """B11, G12: who speaks while a link opens, or is heard again, goes on speaking; a gap there is a lost word."""
    line = Provider()
    audio = caller(line)
    line.is_writable = False
    audio.append("pcm", sound("pcm", 0), 3)
    assert audio._counts["dropped_audio"] == 1, "late audio is of no use"
    audio.append_again("pcm", sound("pcm", 1), 3)
    audio.append("pcm", sound("pcm", 2), 3)
    line.is_writable = True
    audio.append("pcm", sound("pcm", 3), 3)
    line.is_writable = False
    audio.append("pcm", sound("pcm", 4), 3)
    assert line.heard == [1, 2, 3] and audio._counts["dropped_audio"] == 2
    line.is_writable = True
    audio.append_again("pcm", sound("pcm", 5), 3)
    line.is_writable = False
    audio.append("pcm", sound("pcm", 6), 3)
    assert line.heard == [1, 2, 3, 5], "it was through"
    assert audio.recognize(ItemId("item_1"), sound("pcm", 7) * 1_000, None)
    audio.append("pcm", sound("pcm", 8), 3)
    assert line.heard[-1] == 8, "also behind a turn that is recognised again"


def test_a_recording_cannot_be_heard_while_nobody_knows_in_which_format() -> None:
    line = Provider()
    audio = caller(line)
    audio.switch(replace(SessionConfig(), input_format="pcmu"))
    assert not audio.recognize(ItemId("item_1"), sound("pcm", 1) * 1_000, None)
    for late in line.later_calls:
        late()
    assert line.is_lost, "and no answer is an end"
