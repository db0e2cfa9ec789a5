"""A real headless Chromium for stories, driven over the Chrome DevTools protocol. Synchronous, small.

    with Browser.start(microphone=Path("caller.wav")) as browser:
        page = browser.page
        page.goto("http://127.0.0.1:8765/console")
        page.click("text=Start talking")
        page.wait_for("document.querySelector('.status').textContent === 'Listening'")
        page.screenshot(Path("live.png"))
        assert page.problems == []

Selectors are CSS, or ``text=…`` for the first visible button, link or option with exactly those words in it.
Nothing here sleeps blindly: every wait polls the page and fails with what it saw.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from websockets.sync.client import ClientConnection, connect

START_SECONDS = 30.0
"""Chromium's cold start on a busy two-core machine took up to 9 s here."""
POLL_SECONDS = 0.03
MESSAGE_LIMIT = 64 * 2**20
"""Bytes of one DevTools message: a full-page PNG as base64 stays far below."""

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
    # Timers and frames must run as in a visible tab.
    "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
)


class BrowserError(AssertionError):
    """The page did not do what the story says; the message tells what it did instead."""


def find_chromium() -> str | None:
    """Path of a Chromium on this machine, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        path = shutil.which(name)
        if path:
            return path
    return None


class Browser:
    """One Chromium process with its own profile directory: its first page, and those opened later."""

    def __init__(self, process: subprocess.Popen[bytes], profile: Path, page: Page) -> None:
        self._process = process
        self._profile = profile
        self.page = page
        self._more: list[Page] = []

    @classmethod
    def start(
        cls,
        *,
        microphone: Path | None = None,
        loop_microphone: bool = False,
        size: tuple[int, int] = (1360, 860),
        flags: Sequence[str] = (),
    ) -> Browser:
        """Start a browser; ``microphone`` is a WAV that the fake device plays once (or in a loop).

        The fake device starts playing when a page opens it. Raises BrowserError when no Chromium is
        installed or it does not start.
        """
        chromium = find_chromium()
        if chromium is None:
            raise BrowserError("expected Chromium on PATH (Debian: apt-get install chromium)")
        profile = Path(tempfile.mkdtemp(prefix="openline-browser-"))
        command = [chromium, *_FLAGS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}"]
        if microphone is not None:
            suffix = "" if loop_microphone else "%noloop"
            command += [
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}{suffix}",
            ]
        process = subprocess.Popen(
            [*command, *flags, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            page = Page(_page_socket(process, profile))
            page.resize(*size)
            page.stay_active()
        except BaseException:
            _stop(process, profile)
            raise
        return cls(process, profile, page)

    def open_page(self, size: tuple[int, int] = (1360, 860)) -> Page:
        """One more tab; the others go on as if they were in front."""
        port = (self._profile / "DevToolsActivePort").read_text().split()[0]
        request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=5) as answer:
            page = Page(json.load(answer)["webSocketDebuggerUrl"])
        page.resize(*size)
        page.stay_active()
        self._more.append(page)
        return page

    def close(self) -> None:
        """End the process group that ``start`` made and remove its profile. Idempotent."""
        for page in (*self._more, self.page):
            page.close()
        _stop(self._process, self._profile)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _page_socket(process: subprocess.Popen[bytes], profile: Path) -> str:
    port_file = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrowserError(f"Chromium ended at its start with exit code {process.returncode}")
        if port_file.exists() and (lines := port_file.read_text().split()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=5) as answer:
                targets = json.load(answer)
            for target in targets:
                if target["type"] == "page":
                    return str(target["webSocketDebuggerUrl"])
        time.sleep(POLL_SECONDS)
    raise BrowserError(f"Chromium did not open its debugging port within {START_SECONDS:.0f} s")


def _stop(process: subprocess.Popen[bytes], profile: Path) -> None:
    for kind, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            break
        # The group is the one that start_new_session made: Chromium's own children, nobody else.
        os.killpg(process.pid, kind)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    shutil.rmtree(profile, ignore_errors=True)


@dataclass(slots=True)
class Page:
    """One tab. ``problems`` collects uncaught exceptions, console errors and failed page loads, in order."""

    address: str
    problems: list[str] = field(default_factory=list)
    _socket: ClientConnection = field(init=False)
    _last_id: int = 0

    def __post_init__(self) -> None:
        self._socket = connect(self.address, max_size=MESSAGE_LIMIT, compression=None, proxy=None)
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def close(self) -> None:
        self._socket.close()

    def command(self, method: str, /, **parameters: object) -> dict[str, object]:
        """Send one DevTools command and return its result. Raises BrowserError with the protocol's message."""
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == self._last_id:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error'].get('message')}")
                result: dict[str, object] = message.get("result", {})
                return result
            self._event(message)

    def _event(self, message: dict[str, object]) -> None:
        parameters = message.get("params")
        if not isinstance(parameters, dict):
            return
        method = message.get("method")
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            words = [str(part.get("value", part.get("description", ""))) for part in parameters["args"]]
            self.problems.append("console: " + " ".join(words))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            self.problems.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}".strip())

    def goto(self, url: str) -> None:
        """Navigate and wait until the document and its modules have loaded."""
        result = self.command("Page.navigate", url=url)
        if result.get("errorText"):
            raise BrowserError(f"{url}: {result['errorText']}")
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> object:
        """The JSON value of a JavaScript expression (a promise is awaited). Raises BrowserError if it throws."""
        answer = self.command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        details = answer.get("exceptionDetails")
        if isinstance(details, dict):
            raise BrowserError(details.get("exception", {}).get("description") or str(details.get("text")))
        result = answer.get("result")
        return result.get("value") if isinstance(result, dict) else None

    def wait_for(self, expression: str, *, seconds: float = 10.0) -> object:
        """Poll until the expression is truthy; returns its value. Raises BrowserError with the page's words."""
        deadline = time.monotonic() + seconds
        value: object = None
        while time.monotonic() < deadline:
            # A DOM node has no JSON value; that it exists is what was asked.
            value = self.evaluate(
                f"(async () => {{ const v = await ({expression}); return v instanceof Node || v; }})()"
            )
            if value:
                return value
            time.sleep(POLL_SECONDS)
        seen = str(self.evaluate("document.body ? document.body.innerText : ''"))[:4000]
        raise BrowserError(
            f"expected within {seconds:g} s: {expression}; last value {value!r}; problems {self.problems}; page:\n{seen}"
        )

    def text(self, selector: str) -> str:
        """The visible text of the first match; "" when there is none."""
        return str(self.evaluate(f"{_find(selector)}?.innerText ?? ''"))

    def texts(self, selector: str) -> list[str]:
        """The visible texts of all matches, in document order."""
        found = self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((n) => n.innerText)"
        )
        return [str(text) for text in found] if isinstance(found, list) else []

    def click(self, selector: str, *, seconds: float = 10.0) -> None:
        """A real mouse click in the middle of the first match, scrolled into view."""
        place = (
            f"(() => {{ const n = {_find(selector)}; if (!n || n.disabled) return null;"
            " n.scrollIntoView({block: 'center'}); const b = n.getBoundingClientRect();"
            " return b.width ? [b.x + b.width / 2, b.y + b.height / 2] : null; })()"
        )
        found = self.wait_for(place, seconds=seconds)
        assert isinstance(found, list)
        for kind in ("mousePressed", "mouseReleased"):
            self.command(
                "Input.dispatchMouseEvent", type=kind, x=found[0], y=found[1], button="left", clickCount=1
            )

    def type(self, selector: str, text: str) -> None:
        """Focus the first match and insert text as a keyboard would."""
        self.wait_for(
            f"(() => {{ const n = {_find(selector)}; n?.focus(); return document.activeElement === n; }})()"
        )
        self.command("Input.insertText", text=text)

    def press(self, key: str, *, release: bool = True) -> None:
        """One key by its DOM name: "Enter", " ", "x", "ArrowRight". ``release=False`` leaves it down."""
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        codes = {
            "Enter": 13,
            "Escape": 27,
            " ": 32,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "ArrowDown": 40,
        }
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        common: dict[str, object] = {"key": key, "windowsVirtualKeyCode": code}
        if text:
            self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        else:
            self.command("Input.dispatchKeyEvent", type="rawKeyDown", **common)
        if release:
            self.release(key)

    def release(self, key: str) -> None:
        self.command("Input.dispatchKeyEvent", type="keyUp", key=key)

    def resize(self, width: int, height: int, *, scale: float = 1.0, touch: bool = False) -> None:
        """The page's viewport in CSS pixels; ``touch`` makes it a phone (no hover, touch input)."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=touch,
        )
        self.command("Emulation.setTouchEmulationEnabled", enabled=touch)

    def stay_active(self) -> None:
        """Draw and keep time although another tab may be in front."""
        self.command("Emulation.setFocusEmulationEnabled", enabled=True)

    def prefer(self, **features: str) -> None:
        """Set media features: ``prefer(prefers_color_scheme="dark", prefers_reduced_motion="reduce")``."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.command("Emulation.setEmulatedMedia", features=listed)

    def screenshot(self, path: Path) -> Path:
        """Save what the viewport shows as a PNG."""
        data = self.command("Page.captureScreenshot", format="png")["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(str(data)))
        return path


def _find(selector: str) -> str:
    if selector.startswith("text="):
        words = json.dumps(selector.removeprefix("text="))
        return (
            "[...document.querySelectorAll('button, a, summary, option, label')].find((n) => n.offsetParent !== null"
            f" && [...n.childNodes].some((c) => c.textContent.trim() === {words}))"
        )
    return f"document.querySelector({json.dumps(selector)})"
