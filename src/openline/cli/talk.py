"""``openline talk``: a conversation from the terminal, typed, from a file or by microphone."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from openline.cli.audio import read_wav, write_wav
from openline.cli.client import Event, LineClosed
from openline.cli.source import add_address, address_of
from openline.cli.talker import Talker
from openline.cli.terminal import Terminal, clean
from openline.errors import ConfigError, SessionError

REPLY_TIMEOUT_S = 60.0
RESUME_TRIES = 5
"""With the doubling waits below: 15 s, half of the default resume window."""
RESUME_WAIT_S = 0.5


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "talk",
        help="talk with an agent from the terminal",
        description="Talk with an agent: typed (the default), with a recording, or by microphone. A line that "
        "is cut is resumed.",
        epilog="example: openline talk --text 'What time is it?'",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--text", help="say this one thing, print the reply, leave")
    what.add_argument("--wav", type=Path, metavar="FILE", help="speak this recording at real-time pace")
    what.add_argument("--mic", action="store_true", help="by microphone (pip install 'openline[mic]')")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write what the agent says as WAV")
    parser.add_argument("--session", default="", metavar="ID", help="attach to this session, or make it")
    parser.add_argument("--json", action="store_true", help="print the events as NDJSON, audio left out")
    add_address(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    pcm = read_wav(options.wav) if options.wav else b""
    return asyncio.run(Conversation(options, Terminal.of()).run(pcm))


class Conversation:
    """Shows events and drives one call. Spoken when there is audio in or out, else text."""

    def __init__(self, options: argparse.Namespace, term: Terminal) -> None:
        self._options = options
        self._term = term
        self._is_spoken = bool(options.wav or options.mic or options.out)
        self._out = bytearray()
        self._reply = ""
        self._failed = False
        self._talker: Talker | None = None

    async def run(self, pcm: bytes) -> int:
        options = self._options
        play: Callable[[bytes], None] = self._out.extend if options.out else lambda pcm: None
        talker = self._talker = Talker(
            address_of(options),
            self._show,
            session_id=options.session,
            has_microphone=bool(options.wav),
            play=play,
        )
        try:
            created = await talker.connect()
            if not self._is_spoken:
                talker.call.send(
                    "session.update", session={"type": "realtime", "output_modalities": ["text"]}
                )
            if options.text is not None:
                await self._ask(options.text)
            elif options.wav:
                await self._speak(pcm)
            elif options.mic:
                await self._by_microphone()
            else:
                self._say_hello(created)
                await self._read_and_ask()
            return 1 if self._failed else 0
        except TimeoutError:
            raise SessionError(
                f"no reply within {REPLY_TIMEOUT_S:.0f} s.", hint="'openline tail -f' shows what happens."
            ) from None
        finally:
            await talker.close()
            if options.out:
                write_wav(options.out, bytes(self._out))

    # -- what is done

    @property
    def talker(self) -> Talker:
        assert self._talker is not None
        return self._talker

    async def _ask(self, text: str) -> None:
        """One typed turn: the item, the reply and all that its tools lead to."""
        call = self.talker.call
        mark = call.mark()
        content = [{"type": "input_text", "text": text}]
        call.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        call.send("response.create")
        await self._whole_reply(mark)

    async def _speak(self, pcm: bytes) -> None:
        call = self.talker.call
        mark = call.mark()
        await self.talker.say(pcm)
        ends = ("openline.turn.committed", "openline.turn.abandoned")
        turn = await call.wait_for(lambda e: e["type"] in ends, since=mark, timeout_s=REPLY_TIMEOUT_S)
        if turn["type"] == "openline.turn.abandoned":
            if turn["reason"] == "no_speech":
                raise ConfigError(f"{self._options.wav}: no speech was found in it.")
            raise ConfigError(
                f"{self._options.wav}: what it says was not recognised ({turn['reason']}).",
                hint="The gateway's log says why.",
            )
        await self._whole_reply(mark)

    async def _whole_reply(self, mark: int) -> None:
        """Until a response ends that made no call: a tool's result gets a response of its own."""
        call = self.talker.call
        while True:
            done = await call.wait_for(
                lambda e: e["type"] in ("response.done", "error"), since=mark, timeout_s=REPLY_TIMEOUT_S
            )
            if done["type"] == "error":
                return
            made_call = any(
                item["type"] in ("mcp_call", "function_call") for item in done["response"]["output"]
            )
            if not made_call or done["response"]["status"] != "completed":
                break
            mark = call.mark()
        await self.talker.quiet()

    async def _by_microphone(self) -> None:
        from openline.cli.microphone import HEADPHONES, Devices

        talker = self.talker
        devices = Devices(talker.call.send_audio)
        talker.playback.on_play = devices.play
        self._note(f"{HEADPHONES} Ctrl-C ends.")
        try:
            while True:
                try:
                    await talker.call.wait_for(lambda e: False, timeout_s=3600)
                except LineClosed as closed:
                    await self._come_back(closed)
                except TimeoutError:
                    continue
        finally:
            devices.close()

    async def _read_and_ask(self) -> None:
        """The typed conversation, until end of input. A cut line is resumed before the next turn."""
        while (line := await _read_line(self._prompt())) is not None:
            if not line.strip():
                continue
            try:
                if not self.talker.call.is_open:
                    await self._come_back(LineClosed(1006))
                await self._ask(line)
            except LineClosed as closed:
                await self._come_back(closed)

    async def _come_back(self, closed: LineClosed) -> None:
        """Resume with growing waits. Raises the LineClosed that ends it: told to, or tried often enough."""
        if closed.status in (1000, 4000, 4401, 4409, 4410):
            raise closed
        self._note("the line was cut; resuming")
        self.talker.cut()
        for attempt in range(RESUME_TRIES):
            await asyncio.sleep(RESUME_WAIT_S * 2**attempt)
            try:
                await self.talker.connect()
            except (LineClosed, ConfigError):
                continue
            self._note("resumed")
            return
        raise closed

    # -- what is shown

    def _prompt(self) -> str:
        return (
            ""
            if self._options.json or not sys.stdin.isatty()
            else self._term.paint("you    ", "cyan", "bold")
        )

    def _say_hello(self, created: Event) -> None:
        session = created["openline"]["session_id"]
        self._note(f"session {session}; Ctrl-D ends, 'openline talk --session {session}' comes back")

    def _note(self, text: str) -> None:
        if not self._options.json:
            self._term.line(self._term.paint(text, "dim"))

    def _show(self, event: Event) -> None:
        if self._options.json:
            shown = {
                name: value
                for name, value in event.items()
                if "audio.delta" not in event["type"] or name != "delta"
            }
            shown.get("openline", {}).pop("token", None)
            print(json.dumps(shown), flush=True)
            self._failed = self._failed or event["type"] == "error" or _why_failed(event) is not None
            return
        match event["type"]:
            case "openline.turn.partial":
                self._term.live(self._who("you", "cyan") + clean(event["text"]))
            case "conversation.item.input_audio_transcription.completed":
                self._line("you", "cyan", event["transcript"])
            case "response.output_text.delta" | "response.output_audio_transcript.delta":
                self._reply += event["delta"]
                self._term.live(self._who("agent", "green") + clean(self._reply))
            case "response.output_item.done" if event["item"]["type"] in ("function_call", "mcp_call"):
                self._line("tool", "yellow", f"{event['item']['name']}({event['item']['arguments']})")
            case "response.output_item.done":
                self._line("agent", "green", self._reply)
                self._reply = ""
            case "error":
                self._failed = True
                self._line("error", "red", event["error"]["message"])
            case "response.done" if (why := _why_failed(event)) is not None:
                self._failed = True
                self._line("error", "red", f"The reply failed ({why}); the gateway's log says why.")
            case _:
                pass

    def _who(self, name: str, style: str) -> str:
        return self._term.paint(f"{name:<7}", style, "bold")

    def _line(self, name: str, style: str, text: str) -> None:
        for line in self._term.wrapped(text, indent=7, first=self._who(name, style)):
            self._term.line(line)


def _why_failed(event: Event) -> str | None:
    """The code of a reply that failed; None for every other event."""
    if event["type"] != "response.done" or event["response"]["status"] != "failed":
        return None
    details = event["response"].get("status_details") or {}
    return str((details.get("error") or {}).get("code") or "unknown")


async def _read_line(prompt: str) -> str | None:
    """A line of standard input, None at its end. In a daemon thread, so that Ctrl-C need not wait for a key."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str | None] = loop.create_future()

    def settle(text: str | None) -> None:
        if not answer.done():
            answer.set_result(text)

    def read() -> None:
        try:
            text: str | None = input(prompt)
        except (EOFError, ValueError):
            text = None
        try:
            loop.call_soon_threadsafe(settle, text)
        except RuntimeError:
            return  # the loop has ended meanwhile: nobody waits for this line

    threading.Thread(target=read, daemon=True).start()
    return await answer
