"""G.711 through the upstream link: as it is where the provider takes it, transcoded where not, changed in mid-call.

Covers B19 and H6 of the failure catalogue for a telephone's audio. Stories through whole gateways stand in
test_two_gateways_formats.py.
"""

from __future__ import annotations

import asyncio

import pytest

from integration.upstream import MANUAL, Scene, ask, play, until
from openline.adapters.g711 import Law, compress, expand
from openline.core.model import SessionConfig
from openline.core.value import replace
from openline.errors import LinkUnavailable
from openline.testing.fake_realtime import FakeReply
from openline.types import ItemId, ResponseId

LAWS: tuple[Law, ...] = ("pcmu", "pcma")
FRAME_SAMPLES = 480
"""20 ms at 24 kHz, as the session counts."""
SILENT = {"pcmu": b"\xff", "pcma": b"\xd5"}


def loud(law: Law, ms: int = 20) -> bytes:
    return compress(law, b"\x00\x40" * (8 * ms))


def phone(law: Law, config: SessionConfig = MANUAL) -> SessionConfig:
    return replace(config, input_format=law, output_format=law)


def numbered(first: int, count: int) -> list[bytes]:
    """Frames of 20 ms that can be told apart, quiet ones."""
    return [bytes([0xE0 + number % 16]) * 160 for number in range(first, first + count)]


def speak(scene: Scene, law: Law, *, frames: int = 10, silence: int = 30) -> None:
    for data in [loud(law)] * frames + [SILENT[law] * 160] * silence:
        scene.link.append_encoded(data, FRAME_SAMPLES)


@pytest.mark.parametrize("law", LAWS)
def test_audio_passes_unchanged_both_ways(law: Law) -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(phone(law))
        assert scene.link.input_format == law
        for side in ("input", "output"):
            assert connection.session["audio"][side]["format"] == {"type": f"audio/{law}"}
        frames = numbered(0, 16)
        for data in frames:
            scene.link.append_encoded(data, FRAME_SAMPLES)
        await until(lambda: connection.encoded == b"".join(frames))
        scene.fake.plan(FakeReply("hello", audio_ms=400))
        scene.link.start_response(ask("resp_1", phone(law)))
        await scene.done()
        assert scene.link.output_format == law
        said = bytes(scene.sink.audio[ResponseId("resp_1")])
        assert len(said) == 400 * 8
        samples = memoryview(expand(law, said)).cast("h")
        assert 400 < max(map(abs, samples)) < 600, "the provider's quiet tone"
        assert not connection.errors

    play(do)


@pytest.mark.parametrize("law", LAWS)
def test_a_turn_is_placed_by_the_milliseconds_of_its_own_rate(law: Law) -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(phone(law, SessionConfig()))
        scene.link.append_encoded(SILENT[law] * 160, FRAME_SAMPLES)
        speak(scene, law)
        await until(lambda: scene.sink.has("turn_final"))
        start, end = 480, 480 + 10 * 480 + 25 * 480
        assert scene.sink.of("turn_committed")[0] == ("turn_committed", start, end)
        assert scene.link.unconfirmed() == 0 and not connection.errors

    play(do)


def test_a_client_that_ends_its_turns_itself_commits_what_it_sent() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(phone("pcmu"))
        for data in numbered(0, 10):
            scene.link.append_encoded(data, FRAME_SAMPLES)
        scene.link.commit_audio(ItemId("item_m"), 0, 4_800)
        await until(lambda: scene.sink.has("turn_final"))
        assert scene.sink.of("turn_final")[0][1:] == ("item_m", "hello", 0, 4_800)
        scene.link.append_encoded(numbered(0, 1)[0], FRAME_SAMPLES)
        scene.link.clear_audio()
        await until(lambda: connection.of("input_audio_buffer.clear"))
        assert not connection.errors

    play(do)


def test_an_interruption_names_milliseconds_that_the_provider_has() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(phone("pcmu"))
        scene.fake.plan(FakeReply("one two three four", audio_ms=400))
        scene.link.start_response(ask("resp_1", phone("pcmu")))
        await scene.done()
        item = ItemId("item_resp_1_0")
        scene.link.truncate(item, 400, "one two three four")
        scene.link.truncate(item, 150, "one two")
        await until(lambda: connection.of("conversation.item.truncate"))
        cut = connection.of("conversation.item.truncate")
        assert [event["audio_end_ms"] for event in cut] == [150], "what was heard to its end is left alone"
        assert not connection.errors

    play(do)


REFUSALS = ("typed", "bare", "ignored", "close")


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_provider_that_does_not_take_it_is_given_pcm_and_the_log_says_so(
    refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def do(scene: Scene) -> None:
        scene.fake.formats, scene.fake.refusal = {"audio/pcm"}, refusal
        connection = await scene.open(phone("pcmu", SessionConfig()))
        assert scene.sink.names() == ["opened"]
        assert (scene.link.input_format, scene.link.output_format) == ("pcm", "pcm")
        assert len(scene.fake.connections) == (2 if refusal == "close" else 1)
        scene.link.append_audio(bytes(960))
        await until(lambda: len(connection.audio) == 960)
        scene.link.start_response(ask("resp_1", phone("pcmu")))
        await scene.done()
        assert len(scene.sink.audio[ResponseId("resp_1")]) == 400 * 48
        assert scene.link.output_format == "pcm"
        told = [record.getMessage() for record in caplog.records if "transcoded" in record.getMessage()]
        assert [line.partition(": ")[2] for line in told] == [
            "does not take 'pcmu' as its input; it is transcoded",
            "does not take 'pcmu' as its output; it is transcoded",
        ]

    play(do)


def test_a_setting_that_is_wrong_is_still_refused_for_good() -> None:
    """An error that names something else is not taken for a word about formats."""
    from openline.errors import LinkRejected

    async def do(scene: Scene) -> None:
        scene.fake.opens = ["setting:session.audio.output.voice"]
        with pytest.raises(LinkRejected, match="voice"):
            await scene.open(phone("pcmu"))
        assert len(scene.fake.connections) == 1

    play(do)


def test_a_provider_that_says_nothing_is_not_tried_twice_for_it() -> None:
    async def do(scene: Scene) -> None:
        scene.fake.opens = ["deaf"]
        with pytest.raises(LinkUnavailable, match=r"session\.updated"):
            await scene.open(phone("pcmu"))
        assert len(scene.fake.connections) == 1

    play(do, handshake_s=0.3)


def test_one_way_may_be_refused_alone() -> None:
    async def do(scene: Scene) -> None:
        scene.fake.formats = {"audio/pcm", "audio/pcmu"}
        connection = await scene.open(replace(MANUAL, input_format="pcmu", output_format="pcma"))
        assert scene.link.input_format == "pcmu"
        assert connection.session["audio"]["output"]["format"]["type"] == "audio/pcm"
        assert len(connection.of("session.update")) == 2

    play(do)


def test_without_codecs_nothing_but_pcm_is_asked_for() -> None:
    async def do(scene: Scene) -> None:
        from openline.adapters.link_openai_realtime import OpenAIRealtimeFactory
        from openline.types import SessionId

        bare = OpenAIRealtimeFactory(scene.fake.url, "m", lambda: "k")
        scene.link = scene.sink.link = bare(SessionId("s"), MANUAL)
        connection = await scene.open(phone("pcmu"))
        assert connection.session["audio"]["input"]["format"]["type"] == "audio/pcm"
        connection.session["audio"]["input"]["format"] = {"type": "audio/pcmu"}
        scene.link.update(replace(MANUAL, instructions="Be brief."))
        await until(lambda: connection.session["instructions"])
        await asyncio.sleep(0.02)
        assert scene.link.input_format == "pcm", "nor is it followed where it goes"

    play(do)


# ------------------------------------------------------------------------------------------ in mid-call


def test_a_change_in_mid_call_holds_audio_until_it_is_answered_and_loses_none() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        scene.fake.delay_s = 0.05
        scene.link.append_audio(b"\x01\x00" * 480)
        scene.link.update(phone("pcmu"))
        assert scene.link.input_format == "pcmu", "the caller's audio comes as it is from here on"
        frames = numbered(0, 12)
        for data in frames:
            scene.link.append_encoded(data, FRAME_SAMPLES)
        scene.link.commit_audio(ItemId("item_m"), 0, 13 * 480)
        await asyncio.sleep(0.03)
        assert not connection.encoded and not connection.of("input_audio_buffer.commit")
        await until(lambda: scene.sink.has("turn_final"))
        assert connection.encoded == b"".join(frames)
        assert connection.audio[:960] == b"\x01\x00" * 480
        assert not connection.errors

    play(do)


@pytest.mark.parametrize("refusal", ["typed", "ignored"])
def test_a_change_that_is_refused_in_mid_call_is_transcoded_from_the_first_sample(refusal: str) -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        scene.fake.formats, scene.fake.refusal, scene.fake.delay_s = {"audio/pcm"}, refusal, 0.02
        scene.link.update(replace(phone("pcmu"), instructions="Be brief."))
        for _ in range(30):
            scene.link.append_encoded(loud("pcmu"), FRAME_SAMPLES)
        await until(lambda: scene.link.input_format == "pcm")
        await until(lambda: len(connection.audio) > 29 * 960)
        assert not connection.encoded
        heard = memoryview(bytes(connection.audio)).cast("h")
        assert abs(len(heard) - 30 * 480) < 80 and max(heard) > 10_000, "all of it, but for a filter's rest"
        assert connection.session["instructions"] == "Be brief.", "the other settings went by themselves"
        before = len(connection.of("session.update"))
        scene.link.update(replace(phone("pcmu"), instructions="Be very brief."))
        await until(lambda: connection.session["instructions"] == "Be very brief.")
        assert len(connection.of("session.update")) == before + 1, "it is not asked for again"

    play(do)


def test_a_reply_keeps_the_format_that_it_began_with() -> None:
    async def do(scene: Scene) -> None:
        await scene.open()
        scene.fake.plan(FakeReply("one two three four five six", audio_ms=400, pace_s=0.02))
        scene.link.start_response(ask("resp_1"))
        await until(lambda: scene.sink.audio.get(ResponseId("resp_1")))
        scene.link.update(phone("pcmu"))
        await scene.done()
        assert len(scene.sink.audio[ResponseId("resp_1")]) == 400 * 48
        assert scene.link.output_format == "pcm"
        scene.link.start_response(ask("resp_2", phone("pcmu")))
        await scene.done(2)
        assert len(scene.sink.audio[ResponseId("resp_2")]) == 400 * 8
        assert scene.link.output_format == "pcmu"

    play(do)


def test_a_reply_that_says_its_format_is_taken_by_its_word() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(phone("pcmu"))
        connection.session["audio"]["output"]["format"] = {"type": "audio/pcm", "rate": 24_000}
        scene.link.start_response(ask("resp_1", phone("pcmu")))
        await scene.done()
        assert (len(scene.sink.audio[ResponseId("resp_1")]), scene.link.output_format) == (400 * 48, "pcm")

    play(do)


def test_a_provider_that_never_says_whether_it_takes_a_format_is_tried_anew() -> None:
    async def do(scene: Scene) -> None:
        from openline.adapters.link_openai_realtime import caller

        connection = await scene.open()
        patience, caller.SWITCH_S = caller.SWITCH_S, 0.1
        try:
            connection.freeze()
            scene.link.update(phone("pcmu"))
            scene.link.append_encoded(loud("pcmu"), FRAME_SAMPLES)
            error = await scene.lost()
        finally:
            caller.SWITCH_S = patience
        assert isinstance(error, LinkUnavailable) and error.cause == "no_session_updated"
        assert scene.link.unconfirmed() == FRAME_SAMPLES, "what waited was heard by nobody"

    play(do)


# --------------------------------------------------------------------------------- renewal, and recordings


def test_a_renewed_connection_is_given_700_ms_of_it_again() -> None:
    async def do(scene: Scene) -> None:
        await scene.open(phone("pcmu", SessionConfig()))
        frames = numbered(0, 50)
        await until(lambda: len(scene.fake.connections) == 2)
        for data in frames:
            scene.link.append_encoded(data, FRAME_SAMPLES)
        await until(lambda: scene.link.rotations == 1)
        await until(lambda: len(scene.fake.latest.encoded) == 700 * 8)
        assert scene.fake.latest.encoded == b"".join(frames[15:]) and scene.link.input_format == "pcmu"
        events = len(scene.sink.events)
        speak(scene, "pcmu", frames=12)
        await until(lambda: scene.sink.has("turn_final"))
        assert [event[0] for event in scene.sink.events[events:]][0] == "speech_started"
        assert scene.sink.of("speech_started")[-1][1] == 50 * 480, "positions go on"

    play(do, rotate_s=0.2, rotate_by_s=60.0, rotate_retry_s=0.05)


def test_a_renewed_connection_that_takes_less_is_given_it_transcoded() -> None:
    async def do(scene: Scene) -> None:
        await scene.open(phone("pcmu", SessionConfig()))
        scene.link.start_response(ask("resp_1", phone("pcmu")))
        await scene.done()
        assert scene.link.output_format == "pcmu"
        scene.fake.formats = {"audio/pcm"}
        await until(lambda: len(scene.fake.connections) == 2)
        for _ in range(50):
            scene.link.append_encoded(SILENT["pcmu"] * 160, FRAME_SAMPLES)
        await until(lambda: scene.link.rotations == 1)
        await until(lambda: len(scene.fake.latest.audio) > 690 * 48)
        assert not scene.fake.latest.encoded
        assert (scene.link.input_format, scene.link.output_format) == ("pcm", "pcm")
        scene.link.start_response(ask("resp_2", phone("pcmu")))
        await scene.done(2)
        assert len(scene.sink.audio[ResponseId("resp_2")]) == 400 * 48
        assert scene.sink.names().count("opened") == 1

    play(do, rotate_s=0.2, rotate_by_s=60.0, rotate_retry_s=0.05)


@pytest.mark.parametrize("law", LAWS)
def test_what_was_recorded_is_recognised_in_the_providers_format(law: Law) -> None:
    async def do(scene: Scene) -> None:
        words: list[int] = []

        def transcribe(pcm: bytes) -> str:
            words.append(len(pcm) // 48)
            return "from the tape"

        scene.fake.transcribe = transcribe
        connection = await scene.open(phone(law, SessionConfig()))
        assert scene.link.recognize(ItemId("item_t"), b"\x00\x40\x00\xc0" * 12_000)
        await until(lambda: scene.sink.has("turn_final"))
        assert scene.sink.of("turn_final")[0][1:3] == ("item_t", "from the tape")
        assert abs(words[0] - 1_000) <= 4 and abs(len(connection.encoded) - 8_000) <= 32
        assert connection.session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        assert connection.session["audio"]["input"]["format"]["type"] == f"audio/{law}"
        assert not connection.errors

    play(do)


@pytest.mark.parametrize("law", LAWS)
def test_silence_that_ends_a_turn_is_silence_in_its_law(law: Law) -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(phone(law, SessionConfig()))
        speak(scene, law, frames=10, silence=2)
        await until(lambda: scene.sink.has("turn_final"))
        filled = bytes(connection.encoded[12 * 160 :])
        assert filled and set(filled) == set(SILENT[law])
        assert max(memoryview(expand(law, filled)).cast("h")) <= 8

    play(do)
