"""The client's loudspeaker: real time, reports, silence at once, and no word twice after a cut."""

from __future__ import annotations

from openline.cli.playback import BYTES_A_MS, REPORT_MS, Playback


class Scene:
    def __init__(self) -> None:
        self.now_ms = 0
        self.reports: list[tuple[str, int]] = []
        self.heard = bytearray()
        self.playback = Playback(
            lambda: self.now_ms / 1000, lambda item, ms: self.reports.append((item, ms)), self.heard.extend
        )

    def pass_ms(self, ms: int, step: int = 20) -> None:
        for _ in range(ms // step):
            self.now_ms += step
            self.playback.tick()

    @property
    def heard_ms(self) -> int:
        return round(len(self.heard) / BYTES_A_MS)


def audio(ms: int, value: int = 1) -> bytes:
    return bytes([value, 0]) * (ms * BYTES_A_MS // 2)


def test_it_plays_no_faster_than_time() -> None:
    scene = Scene()
    scene.playback.add("a", audio(1000))
    scene.pass_ms(300)
    assert abs(scene.heard_ms - 300) <= 1 and abs(scene.playback.position_ms - 300) <= 1


def test_it_reports_on_the_way_and_the_end_exactly() -> None:
    scene = Scene()
    scene.playback.add("a", audio(500))
    scene.playback.end("a")
    scene.pass_ms(600)
    assert [item for item, _ in scene.reports] == ["a"] * len(scene.reports)
    assert scene.reports[-1] == ("a", 500)
    assert all(
        later - earlier <= REPORT_MS + 20
        for (_, earlier), (_, later) in zip(scene.reports, scene.reports[1:], strict=False)
    )
    assert not scene.playback.is_playing


def test_audio_that_comes_late_is_not_played_faster() -> None:
    scene = Scene()
    scene.playback.add("a", audio(100))
    scene.pass_ms(1000)
    scene.playback.add("a", audio(500))
    scene.pass_ms(100)
    assert abs(scene.heard_ms - 200) <= 1


def test_two_items_follow_each_other_without_a_gap() -> None:
    scene = Scene()
    scene.playback.add("a", audio(90, 1))
    scene.playback.end("a")
    scene.playback.add("b", audio(200, 2))
    scene.pass_ms(200)
    assert scene.heard_ms == 200 and scene.heard.count(2) > 0
    assert abs(scene.playback.position_ms - 110) <= 1


def test_clear_is_silence_at_once_and_says_what_was_heard() -> None:
    scene = Scene()
    scene.playback.add("a", audio(1000))
    scene.pass_ms(240)
    assert scene.playback.clear() == ("a", 240)
    assert scene.reports[-1] == ("a", 240)
    scene.pass_ms(400)
    assert scene.heard_ms == 240 and scene.playback.clear() is None


def test_after_a_cut_positions_go_on_where_the_listener_was() -> None:
    scene = Scene()
    scene.playback.add("a", audio(1000))
    scene.pass_ms(300)
    assert scene.playback.cut() == 700
    scene.pass_ms(500)
    scene.playback.add("a", audio(400))
    scene.playback.end("a")
    scene.pass_ms(500)
    assert scene.reports[-1] == ("a", 700)
    assert scene.heard_ms == 700
