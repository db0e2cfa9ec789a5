"""The console in a real browser against a scripted gateway: it talks, it is honest, it shows what happened."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("starlette", reason="the fake gateway needs starlette (extra: dev)")
pytest.importorskip("uvicorn", reason="the fake gateway needs uvicorn (extra: dev)")

from browser import Browser, Page, find_chromium
from fake_console_server import FakeConsoleServer, caller_wav
from fake_console_session import FakeSession

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on PATH (Debian: apt-get install chromium)"
)

SPOKEN = [(800, 1900), (4200, 5400)]
"""When the recorded caller speaks (ms); the second time falls into the agent's first answer."""
WORKSHOP = "workshop_hinges_0417"
ACTIVITY = "document.querySelector('.talk').dataset.activity"
STATE = "document.querySelector('.talk').dataset.state"


@pytest.fixture(scope="module")
def gateway() -> Iterator[FakeConsoleServer]:
    with FakeConsoleServer() as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    microphone = caller_wav(tmp_path_factory.mktemp("microphone") / "caller.wav", SPOKEN, 40_000)
    with Browser.start(microphone=microphone) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """The tab, blank; whatever the console complained about in a story fails that story."""
    browser.page.goto("about:blank")
    browser.page.problems.clear()
    yield browser.page
    assert browser.page.problems == []


def open_console(page: Page, gateway: FakeConsoleServer, route: str = "#/talk") -> None:
    page.goto(f"{gateway.url}{route}")
    page.wait_for("document.querySelector('main .view')")


def committed(item_id: str, text: str) -> dict[str, object]:
    item = {
        "id": item_id,
        "type": "message",
        "role": "user",
        "content": [{"type": "input_audio", "text": text}],
    }
    return {"turn_id": "turn_x", "text": text, "confidence": 0.9, "item": item, "text_items": []}


def wait_until(is_so: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so within {seconds:g} s"
        time.sleep(0.02)


def live_session(page: Page, gateway: FakeConsoleServer) -> FakeSession:
    return gateway.sessions[page.text(".session-id")]


def test_a_spoken_call_says_exactly_what_was_heard(page: Page, gateway: FakeConsoleServer) -> None:
    """By microphone: an answer cut short by the caller, words not understood; the rest is in the real story."""
    open_console(page, gateway)
    page.click("text=Start talking")
    page.wait_for(f"{ACTIVITY} === 'hearing'", seconds=15)
    page.wait_for(
        "document.querySelector('.entry.user.is-partial .said')?.textContent.startsWith('how many')"
    )
    page.wait_for(f"{ACTIVITY} === 'speaking'", seconds=15)
    assert page.text(".entry.user .said") == "how many brass hinges do we have left"
    assert "93 %" in page.text(".entry.user .meta")
    assert "stock succeeded" in page.text(".entry.tool")

    page.wait_for("document.querySelector('.entry.agent.is-cut .unheard')", seconds=15)
    session = live_session(page, gateway)
    heard = next(fact["data"] for fact in session.facts if fact["type"] == "openline.item.heard")
    reported = [ms for item, ms in session.playouts if item == heard["item_id"]]
    assert reported == sorted(reported), "a played position never goes back"
    assert heard["audio_end_ms"] == reported[-1]
    assert f"heard {heard['audio_end_ms'] / 1000:.1f} s of" in page.text(".entry.agent .meta")
    shown = page.text(".entry.agent .said")
    struck = page.text(".entry.agent .unheard")
    assert len(shown) - len(struck) == heard["text_end"], "what is not struck is what was heard"

    page.wait_for("document.querySelector('.entry.user.is-unsure .small')", seconds=15)
    page.press("E")
    page.wait_for(f"{STATE} === 'closed'")
    wait_until(lambda: session.status == "ended")


def test_typing_needs_no_microphone_and_can_correct_what_was_heard(
    page: Page, gateway: FakeConsoleServer
) -> None:
    """By text: the typed words, the answer spoken, Escape interrupts, typing goes on."""
    open_console(page, gateway)
    page.press("t")
    page.wait_for(f"{ACTIVITY} === 'listening'")
    page.type(".composer-text", "order eighty please")
    page.press("Enter")
    page.wait_for(f"{ACTIVITY} === 'speaking'", seconds=10)
    assert page.text(".entry.user .said") == "order eighty please"
    assert page.text(".entry.user .meta") == "typed"
    page.press("Escape")
    page.press("Escape")
    page.wait_for("document.querySelector('.entry.agent.is-cut')")
    kinds = [command["type"] for command in live_session(page, gateway).commands]
    assert kinds.count("response.cancel") == 1
    ids = [command["event_id"] for command in live_session(page, gateway).commands if "event_id" in command]
    assert len(ids) == len(set(ids)), "command ids are unique in the session"


def test_push_to_talk_hands_the_turn_to_the_caller(page: Page, gateway: FakeConsoleServer) -> None:
    open_console(page, gateway)
    page.press("c")
    page.wait_for(f"{STATE} === 'open'", seconds=15)
    page.press("p")
    page.wait_for("document.querySelector('.hold').offsetParent")
    session = live_session(page, gateway)
    page.evaluate("document.activeElement.blur()")
    page.press(" ", release=False)
    page.wait_for(f"{ACTIVITY} === 'hearing'")
    page.release(" ")
    page.wait_for("document.querySelector('.entry.agent')", seconds=10)
    for _ in range(100):  # The commit may be answered before the request behind it has been read.
        kinds = [command["type"] for command in session.commands]
        if len(kinds) >= 3:
            break
        page.evaluate("new Promise(resolve => setTimeout(resolve, 50))")
    assert kinds[:3] == ["session.update", "input_audio_buffer.commit", "response.create"]
    assert session.manual


def test_sessions_follow_the_feed_and_lead_to_one(page: Page, gateway: FakeConsoleServer) -> None:
    open_console(page, gateway, "#/sessions")
    page.wait_for(f"document.querySelector('[data-id={WORKSHOP}]')")
    before = len(page.texts(".session"))
    page.wait_for("document.querySelector('.page-head .fine').textContent.includes('following the feed')")
    fresh = f"call_{int(time.time() * 1000)}"
    page.evaluate(
        f"new Promise((done) => {{ const s = new WebSocket(location.origin.replace('http', 'ws') +"
        f" '/v1/realtime?openline=1&session_id={fresh}', ['realtime']); s.onmessage = () => done(true); window.kept = s; }})"
    )
    page.wait_for(f"document.querySelector('[data-id={fresh}][data-status=live]')")
    assert len(page.texts(".session")) == before + 1
    page.evaluate("window.kept.close()")
    page.wait_for(f"document.querySelector('[data-id={fresh}][data-status=detached]')")
    page.click(f"[data-id={WORKSHOP}] .session-name")
    page.wait_for("location.hash === '#/sessions/" + WORKSHOP + "'")


def test_watching_shows_words_state_and_every_fact(page: Page, gateway: FakeConsoleServer) -> None:
    open_console(page, gateway, f"#/sessions/{WORKSHOP}")
    facts = len(gateway.sessions[WORKSHOP].facts)
    page.wait_for(f"document.querySelectorAll('.fact').length === {facts}")
    assert page.texts(".fact .seq") == [str(number) for number in range(1, facts + 1)]
    page.wait_for("document.querySelectorAll('.state dd').length")
    state = dict(zip(page.texts(".state dt"), page.texts(".state dd"), strict=True))
    assert {name: state[name] for name in ("Turns", "Interruptions", "Tool calls", "Cuts")} == {
        "Turns": "5", "Interruptions": "1", "Tool calls": "2", "Cuts": "1",
    }  # fmt: skip
    page.press("f")
    page.type(".ledger .filter", "tool.requested order_parts")
    page.wait_for("document.querySelector('.count').textContent === '1 of " + str(facts) + "'")
    page.press("Escape")
    page.press("j")
    page.press("Enter")
    opened = json.loads(page.text(".json"))
    assert opened["name"] == "order_parts"
    assert opened["type"] == "openline.tool.requested"


def test_a_live_session_is_watched_with_its_partial_words(page: Page, gateway: FakeConsoleServer) -> None:
    """An observer sees partials, which are no facts, while someone else speaks."""
    session = gateway.new_session("call_watched1")
    open_console(page, gateway, f"#/sessions/{session.id}")
    page.wait_for("document.querySelector('.page-head .status').textContent.includes('partial words')")
    gateway.run(
        session.partial({"type": "openline.turn.partial", "item_id": "item_x", "text": "how many brass"})
    )
    page.wait_for("document.querySelector('.entry.user.is-partial .said')?.textContent === 'how many brass'")
    gateway.run(session.fact("openline.turn.committed", **committed("item_x", "how many brass hinges")))
    page.wait_for(
        "document.querySelector('.entry.user:not(.is-partial) .said')?.textContent.endsWith('hinges')"
    )
    assert len(page.texts(".entry.user")) == 1


def test_playback_moves_words_and_facts_with_the_sound(page: Page, gateway: FakeConsoleServer) -> None:
    open_console(page, gateway, f"#/sessions/{WORKSHOP}/play")
    page.wait_for("document.querySelector('.play') && !document.querySelector('.play').disabled")
    position = "Number(document.querySelector('.seek').value)"
    for _ in range(3):
        page.press("ArrowRight")
    page.wait_for(f"{position} === 15000")
    assert page.text(".fact.is-now .type") == "response.created"
    assert page.text(".entry.is-now .said").startswith("I will order sixty")
    page.press("j")
    page.wait_for(f"{position} > 17000 && {position} < 17300")
    page.press(" ")
    page.wait_for(f"{position} > 17600")
    assert page.text(".play") == "Pause"
    page.press(" ")
    page.wait_for("document.querySelector('.play').textContent === 'Play'")
    page.click(".fact[data-seq='1'] .fact-head")
    page.wait_for(f"{position} < 50")


def test_what_is_missing_is_said(page: Page, gateway: FakeConsoleServer) -> None:
    """No recording, an unknown kind of fact, a session that does not exist: words, not a broken page."""
    open_console(page, gateway, "#/sessions/call_d4hs8wnr/play")
    page.wait_for("document.querySelector('.no-recording')?.textContent === 'This session has no recording.'")
    page.wait_for("document.querySelectorAll('.fact').length === 5")
    assert "example.unheard_of" in page.texts(".fact .type")
    open_console(page, gateway, "#/sessions/call_nowhere1")
    page.wait_for(
        "document.querySelector('.page-head .status').textContent === 'There is no session of this name.'"
    )
    page.problems[:] = [problem for problem in page.problems if "404" not in problem]


def test_words_from_outside_never_become_markup(page: Page, gateway: FakeConsoleServer) -> None:
    session = gateway.new_session("call_markup01", status="ended")
    gateway.run(session.fact("openline.turn.committed", **committed("i", "<img src=x onerror=window.bad=1>")))
    open_console(page, gateway, f"#/sessions/{session.id}")
    page.wait_for("document.querySelector('.entry.user .said')?.textContent.startsWith('<img')")
    assert page.evaluate("document.querySelectorAll('main img').length + (window.bad ?? 0)") == 0


def test_a_gateway_with_a_key_is_opened_with_it(page: Page) -> None:
    """The key is kept in sessionStorage only; it goes out as bearer and as subprotocol, never in a URL."""
    with FakeConsoleServer(key="sk-story") as locked:
        open_console(page, locked, "#/sessions")
        page.wait_for("document.querySelector('.page-head .fine').textContent.includes('API key')")
        page.click("#key-button")
        page.type("dialog input", "sk-story")
        page.click("text=Use this key")
        page.wait_for(f"document.querySelector('[data-id={WORKSHOP}]')")
        assert page.evaluate("Object.values(localStorage).join().includes('sk-story')") is False
        open_console(page, locked)
        page.press("t")
        page.wait_for(f"{STATE} === 'open'")
        page.goto("about:blank")
    page.problems[:] = [problem for problem in page.problems if "401" not in problem]


def test_keyboard_help_and_colours(page: Page, gateway: FakeConsoleServer) -> None:
    open_console(page, gateway)
    page.press("?")
    page.wait_for("document.querySelector('dialog').open")
    assert "Cut the line" in page.text("dialog")
    page.click("text=Close")
    page.press("d")
    page.press("d")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.press("d")
    assert page.evaluate("document.documentElement.dataset.theme ?? 'auto'") == "auto"
    page.resize(390, 844, touch=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "a phone never scrolls sideways"
    )
    page.resize(1360, 860)


FAKE_SOCKET = """
(async () => {
  const { Line } = await import('/console/protocol.js');
  const made = [], waits = [], states = [];
  class Socket {
    constructor(url) { this.url = url; this.readyState = 1; this.bufferedAmount = 0; this.sent = []; made.push(this); }
    send(text) { this.sent.push(text); }
    close() {}
    get(frame) { this.onmessage({ data: JSON.stringify(frame) }); }
  }
  const timers = { set: (run, ms) => { waits.push(Math.round(ms)); run(); return 1; }, clear() {}, now: () => 0 };
  const line = new Line({ origin: 'ws://x', sessionId: 'call_unit_01', Socket, timers, random: () => 1 });
  line.onstate = (state) => states.push(state);
  line.open();
  const created = (token) => ({ type: 'session.created', event_id: 'evt_1_4_32', session: { openline: { token } } });
  made[0].get(created('a'));
  made[0].get({ type: 'response.created', event_id: 'evt_1_7_0' });
  const stale = made[0];
  made[0].onclose({ code: 1006, reason: '' });
  stale.get({ type: 'response.done', event_id: 'evt_1_99_0' });
  made[1].onclose({ code: 4503, reason: '' });
  made[2].onclose({ code: 1006, reason: '' });
  made[3].get(created('b'));
  made[3].onclose({ code: 4409, reason: '' });
  return { urls: made.map((s) => new URL(s.url).search), waits, states, last: line.lastEvent };
})()
"""


PLAYED_AGAIN = """
(async () => {
  const { Player } = await import('/console/audio.js');
  const told = [];
  const player = new Player({ onplayout() {}, onlevel() {}, onstarted() {} });
  player.node = { port: { postMessage: (message) => told.push([message.do, message.pcm?.[0] ?? message.samples]) } };
  const frame = (first) => Int16Array.from({ length: 2400 }, (_, index) => first + index);
  player.push('item', frame(0));
  player.push('item', frame(2400));
  player.current = 'item';
  player.lineCut();
  player.goesOnFrom('item', 150);
  player.push('item', frame(3600));
  player.push('item', frame(6000));
  player.goesOnFrom('item', 400);
  player.push('item', frame(9600));
  return told;
})()
"""


def test_audio_that_comes_again_after_a_cut_is_played_once(page: Page, gateway: FakeConsoleServer) -> None:
    """The gateway says where it goes on: what was received is skipped, what was lost is counted as passed."""
    open_console(page, gateway)
    assert page.evaluate(PLAYED_AGAIN) == [
        ["push", 0],
        ["push", 2400],
        ["push", 4800],
        ["push", 6000],
        ["seek", 9600],
        ["push", 9600],
    ]


def test_the_line_resumes_where_it_was_and_stops_where_it_must(
    page: Page, gateway: FakeConsoleServer
) -> None:
    """The protocol module alone: token and position on each attempt, growing waits, stale sockets unheard."""
    open_console(page, gateway)
    told = page.evaluate(FAKE_SOCKET)
    assert isinstance(told, dict)
    assert "token" not in told["urls"][0]
    assert "after" not in told["urls"][0]
    assert all("token=a&after=evt_1_7_0" in url for url in told["urls"][1:])
    assert told["waits"] == [200, 360, 648]
    assert told["states"][-1] == "closed"
    assert len(told["urls"]) == 4, "taken over by a newer speaker: it does not fight for the line"
    assert told["last"] == "evt_1_4_32"
