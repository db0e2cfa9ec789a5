"""What plays a story: commands in, lines out. The words of its text files are the methods' names."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from core_call import Call
from openline.core import effects as e
from openline.core import inputs as i
from openline.core.model import (
    AudioRange,
    Cut,
    Item,
    Limits,
    Part,
    Problem,
    ResponseRequest,
    SessionConfig,
    ToolSpec,
    TurnDetection,
    Usage,
)
from openline.core.session import Step
from openline.core.state import Response
from openline.core.value import Value
from openline.types import CallId, ConnectionId, Epoch, ItemId, ResponseId, SessionId, TurnId

SAMPLES_A_MS = 24
OUR_IDS = re.compile(r"(item|turn|resp|call)_ssstory\d{8}")
SILENT_FIELDS = {"limits", "version", "tenant", "session", "token_hash", "replaces", "input", "sha256"}
"""Not told: the same in every story, or told by the story itself."""
NOTHING = ("", (), None, Usage(), SessionConfig())
USUAL = (("modality", "audio"), ("voice", "marin"), ("status", "completed"))


class Teller(Protocol):
    def play(self, command: str) -> list[str]: ...

    def close(self) -> None: ...


def tell(text: str, teller: Teller) -> str:
    """The story with what happens now in place of what was expected."""
    written: list[str] = []
    output: list[str] = []
    is_expectation = False
    for line in text.splitlines():
        if line == "":
            output, is_expectation = [], False
        elif line == "----":
            written += [line, *(output or ["nothing"])]
            is_expectation = True
            continue
        elif not is_expectation and not line.startswith("#"):
            output += teller.play(line)
        if not is_expectation:
            written.append(line)
    teller.close()
    return "\n".join(written) + "\n"


@dataclass
class Words:
    """A command line: its verb, plain words, and ``name=value`` options."""

    verb: str
    plain: list[str]
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, line: str) -> Words:
        verb, *rest = shlex.split(line)
        words = cls(verb, [])
        for word in rest:
            name, equals, value = word.partition("=")
            if equals and re.fullmatch(r"[a-z-]+", name):
                words.options[name] = value
            else:
                words.plain.append(word)
        return words

    def has(self, flag: str) -> bool:
        return flag in self.plain

    def ms(self, name: str, default: int = 0) -> int:
        return milliseconds(self.options[name]) if name in self.options else default


def milliseconds(text: str) -> int:
    """``300``, ``300ms``, ``2s``, ``7d``."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|d|)", text).groups()  # type: ignore[union-attr]  # a story's own fault
    return int(number) * {"": 1, "ms": 1, "s": 1_000, "d": 86_400_000}[unit]


class Story:
    """One session, told. A verb ``speech-start`` is the method ``speech_start``."""

    def __init__(self) -> None:
        self.call = Call()
        self.short: dict[str, str] = {}
        self.long: dict[str, str] = {}
        self.text = ""
        self.made_ms = 0
        self.told_wake: int | None = None

    def close(self) -> None:
        self.call.check_replay()
        self.call.forget()

    def play(self, command: str) -> list[str]:
        words = Words.of(command)
        if words.verb == "context":
            return self.context()
        if words.verb == "advance":
            return self.advance(milliseconds(words.plain[0]))
        if words.verb == "crash":
            step = self.call.crash(words.ms("recorded") * SAMPLES_A_MS, down_ms=words.ms("down"))
            return self.lines(step)
        given = getattr(self, words.verb.replace("-", "_"))(words)
        return self.lines(self.call.give(given))

    # -- telling

    def lines(self, step: Step) -> list[str]:
        told = [f"fact   {fact.TYPE}{self.show_fields(fact)}" for fact in step.facts]
        told += [f"effect {type(effect).__name__}{self.show_fields(effect)}" for effect in step.effects]
        if step.is_rejected and not any(isinstance(effect, e.SendError) for effect in step.effects):
            told.append("refused")
        wake = self.call.wake_ms
        if wake != self.told_wake:
            told.append("wake   never" if wake is None else f"wake   at={wake}ms")
            self.told_wake = wake
        return [OUR_IDS.sub(lambda match: self.shorten(match.group()), line) for line in told]

    def shorten(self, minted: str) -> str:
        if minted not in self.short:
            kind = minted.partition("_")[0]
            name = f"{kind}_{1 + sum(known.startswith(f'{kind}_') for known in self.long)}"
            self.short[minted], self.long[name] = name, minted
        return self.short[minted]

    def show_fields(self, value: object) -> str:
        return "".join(f" {shown}" for shown in self.field_words(value))

    def field_words(self, value: object) -> Iterator[str]:
        assert isinstance(value, Value)
        for known in msgspec.structs.fields(value):
            name, held = known.name, getattr(value, known.name)
            default = known.default if known.default is not msgspec.NODEFAULT else None
            if held is True or held is False:
                if held is not (default or False):
                    yield name if held else f"{name}=no"
            elif name not in SILENT_FIELDS and held not in NOTHING and held != default:
                if (name, held) not in USUAL:
                    yield f"{name}={self.show(held)}"

    def show(self, value: object) -> str:
        match value:
            case Item():
                return self.show_item(value)
            case AudioRange():
                return f"{value.start_ms}..{value.end_ms}ms"
            case Problem():
                kind = "" if value.type == "invalid_request_error" else f" ({value.type})"
                param = f" at {value.param}" if value.param else ""
                return f"{value.code} {json.dumps(value.message)}{param}{kind}"
            case ToolSpec():
                return f"{value.name}/{value.runner}"
            case tuple():
                return "[" + ", ".join(self.show(part) for part in value) + "]"
            case str():
                return value if re.fullmatch(r"[\w.:/-]+", value) else json.dumps(value, ensure_ascii=False)
            case Value():
                return "{" + self.show_fields(value).strip() + "}"
            case _:
                return str(value)

    def show_item(self, item: Item) -> str:
        what = item.author if item.type == "message" else f"{item.type}({item.name}{item.arguments})"
        told = [what, json.dumps(item.text or item.output or item.error, ensure_ascii=False)]
        told += [] if item.status == "completed" else [item.status]
        told += [] if item.heard_ms is None else [f"heard={item.heard_ms}ms"]
        return f"{item.id}<{' '.join(told)}>"

    def context(self) -> list[str]:
        """What a reply would be given now."""
        fresh = Response(
            ResponseId(""), ResponseRequest(), "audio", "", None, None, 1, 0, False, "active", "pcm"
        )
        items = self.call.session.state.context(fresh)
        lines = [f"item   {self.show_item(item)}" for item in items]
        return [OUR_IDS.sub(lambda match: self.shorten(match.group()), line) for line in lines]

    def advance(self, ms: int) -> list[str]:
        told = []
        target = self.call.ms + ms
        while (due := self.call.wake_ms) is not None and due <= target:
            (step, *more) = self.call.advance(max(0, due - self.call.ms))
            told += [f"woken  at={self.call.ms}ms", *self.lines(step)]
            assert not more
        self.call.advance(target - self.call.ms)
        return told

    # -- words shared by commands

    def id(self, words: Words, name: str) -> str:
        given = words.options.get(name, "")
        return self.long.get(given, given)

    def by(self, words: Words) -> ConnectionId:
        """Who sent a command: the caller, if the story does not say otherwise."""
        return ConnectionId(words.options.get("by", "caller"))

    def link(self, words: Words) -> int:
        return int(words.options.get("link", self.call.session.state.link.epoch))

    def response(self, words: Words) -> ResponseId:
        """The one named, else the active one, else any that goes on."""
        state = self.call.session.state
        if "response" in words.options:
            return ResponseId(self.id(words, "response"))
        known = state.active or next(iter(state.responses.values()))
        return known.response_id

    def cut(self, words: Words, item_id: str = "") -> Cut:
        state = self.call.session.state
        if not item_id:
            spoken = [k for k in state.entries if state.entries[k].item.role == "assistant"]
            item_id = self.id(words, "item") or spoken[-1]
        source = words.options.get("source", "paced")
        assert source in ("assumed", "paced", "reported")
        mark = words.options.get("mark")
        made = words.ms("made", self.made_ms)
        text_end = None if mark is None else int(mark)
        return Cut(ItemId(item_id), self.text, made, words.ms("heard"), source, text_end)  # type: ignore[arg-type]  # asserted above

    def cuts(self, words: Words) -> tuple[Cut, ...]:
        return (self.cut(words),) if "heard" in words.options else ()

    # -- the session and its connections

    def open(self, words: Words) -> i.Input:
        limits = Limits(
            resume_window_ms=words.ms("resume-window", 30_000),
            park_for_ms=words.ms("park-for", 7 * 86_400_000),
            silence_budget_ms=words.ms("silence", 8_000),
            detached_reply_ms=words.ms("detached-reply", 15_000),
        )
        prepares, recorded = words.has("prepares"), not words.has("unrecorded")
        return i.OpenSession(
            SessionId("sess_story"),
            "default",
            Epoch(1),
            "node-a",
            self.config(words),
            limits,
            prepares,
            recorded,
        )

    def config(self, words: Words) -> SessionConfig:
        """``tools=clock/gateway/retry,screen/client``, ``manual``, ``no-reply``, ``no-interrupt``, ``text``,
        ``idle=5s``, ``transcription``."""
        tools = []
        for known in filter(None, words.options.get("tools", "").split(",")):
            name, runner, recovery = (known + "/ask").split("/")[:3]
            assert runner in ("client", "gateway") and recovery in ("retry", "verify", "ask")
            tools.append(ToolSpec(name, runner=runner, recovery=recovery))  # type: ignore[arg-type]  # asserted above
        detection = TurnDetection(
            create_response=not words.has("no-reply"),
            interrupt_response=not words.has("no-interrupt"),
            idle_timeout_ms=words.ms("idle") or None,
        )
        return SessionConfig(
            modality="text" if words.has("text") else "audio",
            tools=tuple(tools),
            voice=words.options.get("voice", "marin"),
            turn_detection=None if words.has("manual") else detection,
            purpose="transcription" if words.has("transcription") else "realtime",
        )

    def configure(self, words: Words) -> i.Input:
        return i.UpdateConfig(self.config(words), self.by(words), words.options.get("cmd", ""))

    def attach(self, words: Words) -> i.Input:
        name, role, *_ = words.plain
        assert role in ("speaker", "texter", "observer")
        return i.Attach(
            ConnectionId(name),
            role,  # type: ignore[arg-type]  # asserted above
            words.has("opted-in"),
            words.has("strict"),
            not words.has("one-way"),
            token_hash=words.options.get("token", ""),
            replaces=words.options.get("replaces", ""),
        )

    def drop(self, words: Words) -> i.Input:
        return i.Detach(ConnectionId(words.plain[0]), 1006, clean=False, cuts=self.cuts(words))

    def hang_up(self, words: Words) -> i.Input:
        return i.Detach(ConnectionId(words.plain[0]), 1000, clean=True, cuts=self.cuts(words))

    def end(self, words: Words) -> i.Input:
        return i.EndSession(words.options.get("reason", "client"), self.by(words), cuts=self.cuts(words))

    def link_opened(self, words: Words) -> i.Input:
        return i.LinkOpened(self.link(words), "embedded", words.has("hears"))

    def link_lost(self, words: Words) -> i.Input:
        code, why = "link_unavailable", words.options.get("why", "")
        return i.LinkLost(self.link(words), code, words.has("permanent"), self.cuts(words), why)

    def link_renewed(self, words: Words) -> i.Input:
        return i.LinkRenewed(self.link(words), "age")

    # -- the user

    def speech_start(self, words: Words) -> i.Input:
        start = milliseconds(words.plain[0]) * SAMPLES_A_MS
        return i.SpeechStarted(self.link(words), start, self.cuts(words))

    barge_in = speech_start

    def speech_stop(self, words: Words) -> i.Input:
        return i.SpeechStopped(self.link(words), milliseconds(words.plain[0]) * SAMPLES_A_MS)

    def final(self, words: Words) -> i.Input:
        turn = self.call.session.state.turn
        end = words.ms("end", 0) * SAMPLES_A_MS
        audio = AudioRange(turn.start, turn.end or turn.start + 24_000) if turn else AudioRange(0, end)
        if "end" in words.options:
            audio = AudioRange(0, end)
        text = words.plain[0] if words.plain else None
        return i.TurnFinal(self.link(words), text, 0.9, audio, ItemId(self.id(words, "item")) or None)

    def recognizer_failed(self, words: Words) -> i.Input:
        return i.TurnFailed(self.link(words), "speech_failed", ItemId(self.id(words, "item")) or None)

    def commit(self, words: Words) -> i.Input:
        start, end = (milliseconds(word) * SAMPLES_A_MS for word in words.plain[:2])
        return i.CommitAudio(AudioRange(start, end), self.by(words), words.options.get("cmd", ""))

    def clear(self, words: Words) -> i.Input:
        return i.ClearAudio(self.by(words), words.options.get("cmd", ""))

    def type(self, words: Words) -> i.Input:
        part = Part("input_text", words.plain[0])
        item = Item(ItemId(words.options.get("id", "")), "message", "user", "user", content=(part,))
        return self.create(item, words)

    def create(self, item: Item, words: Words) -> i.Input:
        previous = words.options.get("after")
        previous = self.long.get(previous, previous) if previous else None
        return i.CreateItem(item, previous, self.by(words), words.options.get("cmd", ""))

    def tool_output(self, words: Words) -> i.Input:
        call_id, output = words.plain[:2]
        item = Item(ItemId(""), "function_call_output", "tool", call_id=call_id, output=output)
        return self.create(item, words)

    def delete(self, words: Words) -> i.Input:
        item_id = ItemId(self.long.get(words.plain[0], words.plain[0]))
        return i.DeleteItem(item_id, self.by(words), words.options.get("cmd", ""))

    def truncate(self, words: Words) -> i.Input:
        item_id = ItemId(self.long.get(words.plain[0], words.plain[0]))
        end = milliseconds(words.plain[1])
        return i.TruncateItem(item_id, 0, end, self.by(words), words.options.get("cmd", ""))

    def respond(self, words: Words) -> i.Input:
        request = ResponseRequest(
            conversation="none" if words.has("out-of-band") else "auto",
            modality="text" if words.has("text") else None,
        )
        return i.CreateResponse(request, self.by(words), words.options.get("cmd", ""))

    def cancel(self, words: Words) -> i.Input:
        which = ResponseId(self.id(words, "response")) or None
        cuts, command = self.cuts(words), words.options.get("cmd", "")
        return i.CancelResponse(which, cuts, "client_cancelled", self.by(words), command)

    # -- agent code

    def say(self, words: Words) -> i.Input:
        return i.CreateResponse(ResponseRequest(verbatim=words.plain[0], origin="agent"))

    def prepared(self, words: Words) -> i.Input:
        turn = TurnId(self.id(words, "turn"))
        hint = Item(
            ItemId("hint"), "message", "synthetic", "system", content=(Part("input_text", "Be kind."),)
        )
        return i.ReplyPrepared(turn, ResponseRequest(context=(hint,), origin="turn"), words.has("drop"))

    # -- the model and the playout

    def message(self, words: Words) -> i.Input:
        self.text, self.made_ms = "", 0
        index = int(words.options.get("index", 0))
        return i.MessageStarted(self.link(words), self.response(words), index)

    def progress(self, words: Words) -> i.Input:
        self.text, self.made_ms = words.plain[0], words.ms("made")
        response, index = self.response(words), int(words.options.get("index", 0))
        known = self.call.session.state.responses.get(response)
        item_id = known.outputs[index].item_id if known is not None else ItemId("item_gone")
        return i.MessageProgress(response, index, self.cut(words, item_id))

    def message_done(self, words: Words) -> i.Input:
        self.text, self.made_ms = words.plain[0], words.ms("made")
        index = int(words.options.get("index", 0))
        return i.MessageFinished(self.response(words), index, self.text, self.made_ms)

    def call_start(self, words: Words) -> i.Input:
        name, call_id = words.plain
        index = int(words.options.get("index", 0))
        return i.CallStarted(self.link(words), self.response(words), index, CallId(call_id), name)

    def call_done(self, words: Words) -> i.Input:
        index = int(words.options.get("index", 0))
        return i.CallFinished(self.link(words), self.response(words), index, words.plain[0])

    def generated(self, words: Words) -> i.Input:
        reason = words.options.get("reason", "completed")
        return i.ResponseGenerated(self.link(words), self.response(words), Usage(12, 7), reason)

    def released(self, words: Words) -> i.Input:
        return i.ResponseReleased(self.response(words))

    def failed(self, words: Words) -> i.Input:
        problem = Problem("server_error", "The model could not finish.", "server_error")
        return i.ResponseFailed(self.link(words), self.response(words), problem, self.cuts(words))

    def heard(self, words: Words) -> i.Input:
        words.options["heard"] = words.plain[0]
        return i.Heard(self.cut(words))

    def tool_settled(self, words: Words) -> i.Input:
        call_id, outcome, output = words.plain
        assert outcome in ("succeeded", "failed", "cancelled", "unknown")
        known = self.call.session.state.tools.get(CallId(call_id))
        attempt = int(words.options.get("attempt", known.attempt if known else 1))
        return i.ToolSettled(CallId(call_id), attempt, outcome, output)  # type: ignore[arg-type]  # asserted above

    # -- bookkeeping of the runtime

    def recorded(self, words: Words) -> i.Input:
        return i.SegmentRecorded("caller", 0, int(words.plain[0]) * SAMPLES_A_MS, "caller-1.flac", "00")

    def dropped(self, words: Words) -> i.Input:
        return i.MediaDropped("playout", milliseconds(words.plain[0]), "oldest_first")
