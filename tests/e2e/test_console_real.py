"""The console in a real browser on a real gateway: one call by recorded voice, watched, cut, listed, played back.

The microphone is a WAV of the demo's recordings at fixed times; everything behind it is what a user runs:
``openline serve`` as a process, its recognizer, its voice, its log. A second tab watches the same call.
With ``OPENLINE_PICTURES=FOLDER`` the pictures of the documentation are taken on the way.
"""

from __future__ import annotations

import json
import os
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from e2e.browser import Browser, Page, find_chromium
from integration.gateway import GatewayProcess, stories
from openline.bootstrap import speech_wheels
from openline.demo import phrases
from openline.ports import SPEECH_RATE

MISSING = [name for name, is_there in speech_wheels().items() if not is_there]
pytestmark = [
    pytest.mark.skipif(
        find_chromium() is None, reason="no Chromium on PATH (Debian: apt-get install chromium)"
    ),
    pytest.mark.skipif(
        bool(MISSING), reason=f"the call is spoken, and {', '.join(MISSING)} is not installed"
    ),
]

SPOKEN_S = {"about": 1.0, "stop": 7.4, "go_on": 11.6, "time": 19.4}
"""When the caller says what: each leaves two seconds for a slow machine before the next."""
MICROPHONE_S = 60.0
HEARD_BEFORE_CUT_S = 1.2
HEARD_BEFORE_TYPING_S = 1.5
ACTIVITY = "document.querySelector('.talk').dataset.activity"
STATE = "document.querySelector('.talk').dataset.state"
RECORD_PARTIALS = """
(() => {
  window.partials = [];
  const look = () => {
    const words = document.querySelector('.entry.user.is-partial .said')?.textContent;
    if (words && words !== '…' && words !== window.partials.at(-1)) window.partials.push(words);
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
})()
"""


@dataclass
class Stage:
    """The gateway, the caller's tab and the tab of somebody who watches."""

    gateway: GatewayProcess
    caller: Page
    watcher: Page
    session: str = ""
    pictures: Path | None = None
    facts: list[dict[str, Any]] = field(default_factory=list)

    def open(self, page: Page, route: str) -> None:
        page.goto(f"{self.gateway.url}/console{route}")
        page.wait_for("document.querySelector('main .view')")

    def picture(self, page: Page, name: str) -> None:
        if self.pictures is not None:
            page.screenshot(self.pictures / f"console-{name}.png")

    def read_facts(self) -> list[dict[str, Any]]:
        """All facts of the session as the API gives them to programs."""
        lines = self.caller.evaluate(
            f"fetch('/v1/sessions/{self.session}/facts', {{headers: {{Accept: 'application/x-ndjson'}}}})"
            ".then((answer) => answer.text())"
        )
        self.facts = [json.loads(line) for line in str(lines).splitlines()]
        return self.facts

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [fact["data"] for fact in self.facts if fact["type"] == type_]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    book = phrases.load()
    grammar = tmp_path / "grammar.txt"
    grammar.write_text("".join(f"{text}\n" for text in book.caller_grammar))
    microphone = caller_voice(tmp_path / "caller.wav", book)
    pictures = os.environ.get("OPENLINE_PICTURES")
    with (
        GatewayProcess(tmp_path / "data", ("--recognizer-grammar", str(grammar))) as gateway,
        Browser.start(microphone=microphone) as browser,
    ):
        yield Stage(gateway, browser.page, browser.open_page(), pictures=Path(pictures) if pictures else None)


def caller_voice(path: Path, book: phrases.Phrases) -> Path:
    track = bytearray(int(MICROPHONE_S * SPEECH_RATE) * 2)
    for name, at_s in SPOKEN_S.items():
        pcm, start = phrases.audio(book.by_name(name)), int(at_s * SPEECH_RATE) * 2
        track[start : start + len(pcm)] = pcm
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SPEECH_RATE)
        file.writeframes(bytes(track))
    return path


@pytest.mark.timeout(120)  # half a minute of real time, and a browser on a machine that may be busy
def test_a_spoken_call_from_the_first_word_to_its_playback(stage: Stage) -> None:
    stage.open(stage.caller, "#/talk")
    stage.caller.wait_for("document.querySelector('.hero button')")
    stage.picture(stage.caller, "idle")
    words_grow_and_are_answered(stage)
    speaking_over_the_reply_stops_it(stage)
    a_cut_line_resumes(stage)
    a_tool_is_seen_to_run(stage)
    typing_goes_on_in_the_same_call(stage)
    the_call_is_ended_and_listed(stage)
    every_fact_is_shown(stage)
    the_recording_plays_with_its_facts(stage)
    assert stage.caller.problems == []
    assert stage.watcher.problems == []
    assert stage.gateway.stop() == 0
    log = stories(stage.gateway.data)[stage.session]  # replays it
    assert log.status == "ended"
    assert len(log.facts) == len(stage.facts)


def words_grow_and_are_answered(stage: Stage) -> None:
    page, watcher = stage.caller, stage.watcher
    page.evaluate(RECORD_PARTIALS)
    page.click("text=Start talking")
    page.wait_for(f"{STATE} === 'open'")
    stage.session = page.text(".session-id")
    stage.open(watcher, f"#/sessions/{stage.session}")
    watcher.evaluate(RECORD_PARTIALS)
    page.command("Page.bringToFront")
    page.wait_for(f"{ACTIVITY} === 'speaking'", seconds=15)
    for tab in (page, watcher):
        tab.wait_for("document.querySelector('.entry.user:not(.is-partial) .said')")
        assert tab.texts(".entry.user .said") == ["Tell me about the open line."]
        assert "confidence" in tab.text(".entry.user .meta")
        grown = tab.evaluate("window.partials")
        assert isinstance(grown, list) and len(grown) >= 3, f"words are shown while they are said: {grown}"
        assert [len(words) for words in grown] == sorted(len(words) for words in grown)
    assert page.text(".entry.agent .said").startswith("Openline keeps one line open")


def speaking_over_the_reply_stops_it(stage: Stage) -> None:
    page, watcher = stage.caller, stage.watcher
    for tab in (page, watcher):
        tab.wait_for("document.querySelector('.entry.agent.is-cut .unheard')", seconds=15)
    deadline = time.monotonic() + 5
    while not all(shows_what_was_heard(stage, tab) for tab in (page, watcher)):
        assert time.monotonic() < deadline, "what is not struck is what was heard"
    assert stage.of("openline.item.heard")[-1]["source"] == "reported"
    page.wait_for("document.querySelectorAll('.entry.agent .said')[1]?.textContent === 'Okay.'", seconds=15)
    assert page.texts(".entry.user .said")[-1] == "Okay, please hold on."


def shows_what_was_heard(stage: Stage, tab: Page) -> bool:
    """By the latest word on it: a player may correct itself a moment later."""
    stage.read_facts()
    heard = stage.of("openline.item.heard")[-1]
    shown, struck = tab.text(".entry.agent .said"), tab.text(".entry.agent .unheard")
    return len(shown) - len(struck) == int(heard["text_end"]) and bool(struck)


def a_cut_line_resumes(stage: Stage) -> None:
    page, watcher = stage.caller, stage.watcher
    page.wait_for("document.querySelectorAll('.entry.agent .said').length === 3", seconds=15)
    page.wait_for(f"{ACTIVITY} === 'speaking'")
    time.sleep(HEARD_BEFORE_CUT_S)  # a reply that is being heard
    page.press("x")
    page.wait_for(f"{STATE} === 'cut'")
    watcher.wait_for("document.querySelector('.watch').dataset.status === 'detached'")
    page.wait_for("document.querySelector('.entry[data-tone=resumed]')", seconds=10)
    assert "nothing lost" in page.text(".entry[data-tone=resumed] .meta")
    page.wait_for(f"{ACTIVITY} === 'speaking'")
    watcher.wait_for("document.querySelector('.watch').dataset.status === 'live'")
    assert len(page.texts(".entry.agent")) == 3, "the reply goes on; it does not come again"
    for list_ in (".words .scroll", ".ledger .scroll"):
        page.wait_for(
            f"((n) => n.scrollHeight - n.scrollTop - n.clientHeight < 60)(document.querySelector('{list_}'))"
        )


def a_tool_is_seen_to_run(stage: Stage) -> None:
    page = stage.caller
    page.wait_for("document.querySelector('.entry.tool[data-state=succeeded]')", seconds=20)
    assert page.texts(".entry.user .said")[-1] == "What time is it?"
    assert page.text(".entry.tool .said").startswith("get_time succeeded in")
    page.wait_for("document.querySelectorAll('.entry.agent .said')[3]?.textContent.startsWith('It is ')")
    assert "is-cut" in str(page.evaluate("document.querySelectorAll('.entry.agent')[2].className"))
    stage.read_facts()
    created = stage.caller.evaluate(f"fetch('/v1/sessions/{stage.session}').then((a) => a.json())")
    assert isinstance(created, dict)
    for fact in stage.facts:
        if fact["type"] == "input_audio_buffer.speech_started":
            at = page.evaluate(f"Date.parse({json.dumps(fact['time'])})")
            assert isinstance(at, int)
            late = at - created["created_ms"] - fact["data"]["audio_start_ms"]
            assert 0 <= late < 1500, (
                f"speech stands in the recording where it was said, also after a cut: {late} ms"
            )


def typing_goes_on_in_the_same_call(stage: Stage) -> None:
    page = stage.caller
    time.sleep(HEARD_BEFORE_TYPING_S)
    stage.picture(page, "live")
    page.type(".composer-text", "what is twelve times seven")
    page.press("Enter")
    page.wait_for(
        "document.querySelectorAll('.entry.agent .said')[4]?.textContent === 'That is eighty four.'"
    )
    assert page.texts(".entry.user .meta")[-1] == "typed"
    assert page.texts(".entry.tool .tool-name") == ["get_time", "calculate"]
    assert "–" not in page.texts(".measure b"), "reply, interruption and resume were measured"
    page.wait_for(
        "[...document.querySelectorAll('.entry.agent .meta')].at(-1).textContent.includes('heard in full')"
    )


def the_call_is_ended_and_listed(stage: Stage) -> None:
    page, watcher = stage.caller, stage.watcher
    stage.open(watcher, "#/sessions")
    row = f"document.querySelector('[data-id={stage.session}]')"
    watcher.wait_for(f"{row}?.dataset.status === 'live'")
    watcher.wait_for("document.querySelector('.page-head .fine').textContent.includes('following the feed')")
    page.evaluate("document.activeElement.blur()")
    page.press("E")
    page.wait_for(f"{STATE} === 'closed'")
    watcher.wait_for(f"{row}.dataset.status === 'ended'")
    assert "5 turns" in watcher.text(f"[data-id={stage.session}]")


def every_fact_is_shown(stage: Stage) -> None:
    watcher = stage.watcher
    watcher.click(f"[data-id={stage.session}] .session-name")
    count = len(stage.read_facts())
    watcher.wait_for(f"document.querySelectorAll('.fact').length === {count}")
    assert watcher.texts(".fact .seq") == [str(number) for number in range(1, count + 1)]
    watcher.wait_for(f"[...document.querySelectorAll('.state dd')].some((n) => n.textContent === '{count}')")
    state = dict(zip(watcher.texts(".state dt"), watcher.texts(".state dd"), strict=True))
    expected = {"Turns": "5", "Interruptions": "3", "Tool calls": "2", "Cuts": "1", "Facts": str(count)}
    assert {name: state[name] for name in expected} == expected


def the_recording_plays_with_its_facts(stage: Stage) -> None:
    watcher = stage.watcher
    watcher.click("text=Play recording")
    watcher.wait_for("document.querySelector('.play') && !document.querySelector('.play').disabled")
    position = "Number(document.querySelector('.seek').value)"
    assert watcher.evaluate("Number(document.querySelector('.seek').max) > 18000")
    watcher.press("ArrowRight")
    watcher.wait_for(f"{position} === 5000")
    assert watcher.text(".entry.is-now .said").startswith("Openline keeps one line open")
    watcher.press(" ")
    watcher.wait_for(f"{position} > 5600")
    assert watcher.text(".play") == "Pause"
    watcher.press(" ")
    stage.picture(watcher, "playback")
    number = next(int(fact["sequence"]) for fact in stage.facts if fact["type"] == "openline.tool.settled")
    watcher.click(f".fact[data-seq='{number}'] .fact-head")
    watcher.wait_for(f"{position} > 17000")
