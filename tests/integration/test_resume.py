"""Coming back: after every single frame, in every role, after a park, a replacement, a drop in mid-reply."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from integration.gateway import running, spoken_agent, stories
from integration.line import (
    Frame,
    Line,
    Place,
    again,
    check_nothing_lost_or_doubled,
    dial,
    dial_unheard,
    durable_frames,
    line,
    place_of,
    silence,
)
from openline.ports import Speech
from openline.testing.speech import ToneSynthesizer
from openline.wire.render import MAX_FRAMES

KEY = {"key": "the-key-of-ann"}
TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]


async def conversation(caller: Line) -> None:
    """Facts of every shape: one frame, many frames, ours and the protocol's."""
    await caller.send(
        "session.update", session={"type": "realtime", "output_modalities": ["text"], "tools": TOOLS}
    )
    await caller.turn("hello there")
    done = await caller.turn("call look with {} and call look with {}")
    for call in done["response"]["output"]:
        await caller.send(
            "conversation.item.create",
            item={"type": "function_call_output", "call_id": call["call_id"], "output": "seen"},
        )
    await caller.send("response.create")
    await caller.wait("response.done")
    await caller.write("forget this")
    item = await caller.wait("conversation.item.done")
    await caller.send("conversation.item.delete", item_id=item["item"]["id"])
    await caller.wait("conversation.item.deleted")


def test_a_cut_after_every_single_frame_resumes_exactly(tmp_path: Path) -> None:
    """The whole stream is known from a client that was never cut; others take it up after each frame of it.

    And are cut again after each of their first frames, session.created among them.
    """

    async def story() -> None:
        async with running(tmp_path / "data") as gateway, line(gateway.url) as caller:
            await conversation(caller)
            whole = durable_frames(caller.frames)
            sizes = Counter(place[1] for place, _ in whole)
            assert sum(size > 1 for size in sizes.values()) >= 12, "facts of several frames"
            seen: list[Place] = []
            for frame in caller.frames[1:]:
                if place_of(frame)[2] < MAX_FRAMES:
                    seen.append(place_of(frame))
                rest = await observed(gateway.url, caller, frame, whole[-1][0])
                expected = whole[len(seen) :]
                assert durable_before(rest, whole[-1][0]) == expected, f"after {frame['event_id']}"
                for count in (1, 3):
                    again_ = await observed(gateway.url, caller, rest[count - 1], whole[-1][0])
                    both = durable_before(rest[:count] + again_, whole[-1][0])
                    assert both == expected, f"after {frame['event_id']}, then {rest[count - 1]['event_id']}"

    asyncio.run(story())


async def observed(url: str, caller: Line, cut: Frame, last: Place) -> list[Frame]:
    """All that an observer who saw everything up to ``cut`` is sent, until it has passed ``last``."""
    session = caller.opening["session_id"]
    async with line(url, session_id=session, role="observer", after=cut["event_id"]) as observer:
        await observer.wait_any(lambda frame: last < place_of(frame) and place_of(frame)[2] < MAX_FRAMES)
        return list(observer.frames)


def durable_before(frames: list[Frame], last: Place) -> list[tuple[Place, Frame]]:
    return [(place, frame) for place, frame in durable_frames(frames) if place <= last]


# ------------------------------------------------------------------------------------- who may come back


def test_a_token_is_replaced_and_outlives_a_client_that_never_got_the_new_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", api_keys={"ann": "the-key-of-ann"}) as gateway:
            first = await dial(gateway.url, **KEY)
            session, token = first.opening["session_id"], first.opening["token"]
            await first.drop()
            # It is cut before it reads its new token, so the one that it has must still do.
            unheard = await dial_unheard(gateway.url, session_id=session, token=token)
            await unheard.reset()
            async with line(gateway.url, session_id=session, token=token) as second:
                newer = second.opening["token"]
                assert newer != token
            async with line(gateway.url, session_id=session, token=newer) as third:
                assert third.opening["token"] not in (token, newer)
            assert await refusal(gateway.url, session_id=session, token=token) == 401

    asyncio.run(story())


def test_a_wrong_token_opens_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(
            tmp_path / "data", api_keys={"ann": "the-key-of-ann", "bob": "the-key-of-bob"}
        ) as gateway:
            async with line(gateway.url, **KEY) as owner, line(gateway.url, **KEY) as stranger:
                session = owner.opening["session_id"]
                for token in ("", "wrong", stranger.opening["token"]):
                    assert await refusal(gateway.url, session_id=session, token=token) == 401
                assert await refusal(gateway.url, session_id="sess_unknown1", token="wrong") == 401
                wrong_role = {"session_id": session, "token": owner.opening["token"], "role": "observer"}
                observer = await dial_unheard(gateway.url, **wrong_role)
                assert (await observer.wait("error"))["error"]["code"] == "invalid_token"
                assert (await observer.wait_closed())[0] == 4000
                # A session id is no credential: another tenant's key makes a session of that name or none.
                assert (await owner.turn("still here"))["response"]["status"] == "completed"

    asyncio.run(story())


async def refusal(url: str, **query: object) -> int:
    """The HTTP status with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await dial_unheard(url, **query)
    return refused.value.response.status_code


def test_roles_do_what_they_may(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data") as gateway, line(gateway.url) as speaker:
            session = speaker.opening["session_id"]
            async with (
                line(gateway.url, session_id=session, role="texter") as texter,
                line(gateway.url, session_id=session, role="observer") as observer,
            ):
                done = await texter.turn("say hello to all of you")
                for one in (speaker, observer):
                    assert (await one.wait("response.done"))["response"] == done["response"]
                assert speaker.audio() and not texter.audio() and not observer.audio()
                await texter.append(silence(20))
                assert "sends no audio" in (await texter.wait("error"))["error"]["message"]
                asked = await observer.send("response.create")
                refused = await observer.wait("error")
                assert refused["error"]["event_id"] == asked and "observer" in refused["error"]["message"]
                shown = [
                    [one for _, one in durable_frames(each.frames)] for each in (speaker, texter, observer)
                ]
            assert shown[1][1:] == shown[0][-len(shown[1]) + 1 :]
            assert shown[2] == shown[0][-len(shown[2]) :]

    asyncio.run(story())


# --------------------------------------------------------------------------------------- where it goes on


def test_a_parked_session_is_taken_up_by_whoever_comes(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", resume_window_ms=100) as gateway:
            caller = await dial(gateway.url)
            await caller.turn("one")
            await caller.drop()
            await until(lambda: stories(tmp_path / "data")[caller.opening["session_id"]].status == "parked")
            back = await dial(gateway.url, **again(caller))
            done = await back.turn("two")
            assert done["response"]["status"] == "completed"
            assert "openline.session.parked" in [frame["type"] for frame in back.frames]
            await back.close()
        found = stories(tmp_path / "data")[caller.opening["session_id"]]
        assert check_nothing_lost_or_doubled(found, [caller.frames, back.frames], whole=False) > 20

    asyncio.run(story())


@pytest.mark.parametrize("after", ["evt_1_9999_0", "evt_7_3_0", "evt_1_9999_64"])
def test_what_the_log_does_not_have_is_void_and_the_client_is_told(tmp_path: Path, after: str) -> None:
    async def story() -> None:
        async with running(tmp_path / "data") as gateway:
            caller = await dial(gateway.url)
            await caller.turn("one")
            await caller.close()
            session = caller.opening["session_id"]
            async with line(gateway.url, session_id=session, after=after) as back:
                rewound = (
                    back.frames[1] if len(back.frames) > 1 else await back.wait("openline.session.rewound")
                )
                assert rewound["type"] == "openline.session.rewound"
                end = stories(tmp_path / "data")[session].facts[-1][0]
                assert rewound["seq"] <= end and rewound["epoch"] == int(after.split("_")[1])
                assert place_of(back.frames[0])[:2] == (1, rewound["seq"])

    asyncio.run(story())


def test_what_was_seen_of_a_dead_epoch_beyond_its_log_is_void(tmp_path: Path) -> None:
    """As after a disk that lied: the client saw seq 6 of epoch 1, whose log ends before; epoch 2 wrote its own."""

    async def story() -> None:
        data = tmp_path / "data"
        async with running(data) as gateway:
            caller = await dial(gateway.url)
            session = caller.opening["session_id"]
            await caller.close()
        end = stories(data)[session].facts[-1][0]
        async with running(data) as gateway:
            async with line(gateway.url, session_id=session) as other:
                await other.turn("of the second epoch")
                async with line(
                    gateway.url, session_id=session, role="observer", after=f"evt_1_{end + 1}_0"
                ) as back:
                    rewound = await back.wait("openline.session.rewound")
                    assert (rewound["epoch"], rewound["seq"]) == (1, end)
                    await back.wait("response.done")
                    found = [place for place, _ in durable_frames(back.frames)]
                    assert found[0][:2] == (2, end + 1)

    asyncio.run(story())


def test_a_stock_client_comes_back_by_url_alone(tmp_path: Path) -> None:
    """No history is replayed to it; the agent knows what was said before."""

    async def story() -> None:
        agent = spoken_agent()
        async with running(tmp_path / "data", agent) as gateway:
            url = {"openline": 0, "session_id": "kitchen-phone-1"}
            async with line(gateway.url, **url) as caller:
                await caller.turn("Remember, my code word is tiger seven.")
            async with line(gateway.url, **url) as back:
                await back.ask("What is my code word?", output_modalities=["text"])
                done = await back.wait("response.done")
                assert "tiger seven" in done["response"]["output"][0]["content"][0]["text"].lower()
                texts = str(back.frames).lower().replace(str(done).lower(), "")
                assert "remember" not in texts, "history was replayed"
                assert not [frame for frame in back.frames if "openline" in frame["type"]]

    asyncio.run(story())


# ------------------------------------------------------------------------------------ audio after a drop

SECOND = 48_000


class Ruler(ToneSynthesizer):
    """Speaks its own position: each sample is the millisecond at which it lies, over all sentences."""

    def __init__(self, pause_s: float = 0.0) -> None:
        super().__init__()
        self.at_ms = 0
        self.pause_s = pause_s

    async def speak(self, text: str, *, voice: str = "", speed: float = 1.0) -> AsyncGenerator[Speech, None]:
        for step in range(1, 26):
            chunk = b"".join(ms.to_bytes(2, "little") * 24 for ms in range(self.at_ms, self.at_ms + 60))
            self.at_ms += 60
            yield Speech(chunk, len(text) * step // 25)
            await asyncio.sleep(self.pause_s)


def milliseconds(pcm: bytes) -> list[int]:
    return [int.from_bytes(pcm[at : at + 2], "little") for at in range(0, len(pcm), 48)]


SPOKEN = "drop, spoken as it is heard"


@pytest.mark.parametrize(
    ("way", "record"),
    [("drop", "on"), ("reset", "on"), ("half open", "off"), (SPOKEN, "on"), (SPOKEN, "off")],
)
def test_audio_goes_on_from_where_it_can_have_been_heard(tmp_path: Path, way: str, record: str) -> None:
    """No gap; repeated is at most what is assumed not to have been heard (500 ms) and the lead of the release.

    Spoken as it is heard, it was all played, and comes back from the recording if there is one.
    """

    async def story() -> None:
        agent = spoken_agent()
        agent.tts = ruler = Ruler(0.06 if way == SPOKEN else 0.0)
        async with running(tmp_path / "data", agent, record=record) as gateway:
            caller = await dial(gateway.url)
            await caller.ask("hello")
            await until(lambda: len(caller.audio()) > 1.5 * SECOND)
            if way == "half open":
                caller.freeze()
                back = await dial(gateway.url, **again(caller))
                await caller.bury()
            else:
                await (caller.reset() if way == "reset" else caller.drop())
                await asyncio.sleep(0.2)
                back = await dial(gateway.url, **again(caller))
            before = milliseconds(caller.audio())
            done = await back.wait("response.done")
            assert done["response"]["status"] == "completed"
            after = milliseconds(back.audio())
            told = next(f for f in back.frames if f["type"] == "openline.item.partial")["audio_start_ms"]
            assert after == list(range(told, ruler.at_ms)), (
                "it is told where the audio goes on, and it does to its end"
            )
            assert before == list(range(len(before)))
            assert before[-1] - 1_100 <= told <= before[-1] + 1
            heard = await back.wait("openline.item.heard", lambda frame: frame["source"] == "paced")
            assert heard["audio_end_ms"] == ruler.at_ms
            await back.close()

    asyncio.run(story())


async def until(test: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not test():
            await asyncio.sleep(0.01)
