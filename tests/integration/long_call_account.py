"""What is wrong with a long call, if anything: judged from the caller's frames, the log, and what the provider has."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from integration.long_call import BUDGET_S, SETTLE_S, SLACK_S, LongCall, Said, provider_history
from openline.core import facts as f
from openline.core.facts import Fact
from openline.core.session import Session
from openline.wire.envelope import effect_digest

SIGNS = (
    "delta.text",
    "delta.audio",
    "openline.silence.exceeded",
    "openline.link.lost",
    "openline.link.opened",
)
"""What a caller who waits for a reply is shown of its progress, beside the frames of the reply itself."""
UNRECORDED = "unheard by a deaf provider, not recorded"


@dataclass
class Account:
    """What is wrong with a call, each fault a sentence; and what there was of it."""

    call: LongCall
    wrong: list[str] = field(default_factory=list)
    answered: int = 0
    words_answered: set[str] = field(default_factory=set)
    settled: Counter[str] = field(default_factory=Counter)

    def take(self) -> Account:
        self.take_terminals()
        self.take_items()
        self.take_words()
        self.take_silence()
        self.take_links()
        self.take_history()
        self.take_replay()
        return self

    def expect(self, holds: object, sentence: str) -> None:
        if not holds:
            self.wrong.append(sentence)

    @property
    def frames(self) -> list[tuple[float, dict[str, Any]]]:
        return self.call.client.frames

    # -- the caller's frames

    def take_terminals(self) -> None:
        """One end for each response, with its reason, and nothing of it afterwards."""
        begun: dict[str, float] = {}
        ended: Counter[str] = Counter()
        for at, frame in self.frames:
            response = frame.get("response") or {}
            name = response.get("id") or frame.get("response_id", "")
            if frame["type"] == "response.created":
                begun[name] = at
            elif frame["type"] == "response.done":
                ended[name] += 1
                self.expect(name in begun, f"{name} ended and never began")
                reason = self.reason_of(response)
                self.settled[reason] += 1
                self.expect(reason, f"{name} ended {response['status']} at {at:.1f} s without a reason")
            elif name and frame["type"].startswith(("response.", "delta.")):
                self.expect(
                    name in begun and not ended[name], f"{frame['type']} of {name} outside of its life"
                )
        for name, at in begun.items():
            self.expect(ended[name] == 1, f"{name} of {at:.1f} s has {ended[name]} ends")

    @staticmethod
    def reason_of(response: dict[str, Any]) -> str:
        details = response.get("status_details") or {}
        own = response.get("openline", {}).get("reason", "")
        if response["status"] == "completed":
            return "completed"
        return own or details.get("reason") or (details.get("error") or {}).get("code", "")

    def take_items(self) -> None:
        """No item twice, by id and by what it says; no tool run twice."""
        added = Counter(
            frame["item"]["id"] for _, frame in self.frames if frame["type"] == "conversation.item.added"
        )
        for name, count in added.items():
            self.expect(count == 1, f"item {name} was added {count} times")
        user: Counter[str] = Counter()
        answers: Counter[str] = Counter()
        is_understood = True
        for item in self.call.ended.state.conversation():
            if item.type == "message" and item.role == "user":
                is_understood = bool(item.text)
            if not is_understood and item.text.startswith("answer answer "):
                continue  # To a turn whose words were lost: the double has only what it said itself to speak to.
            words = [word for word in item.text.split() if word[:1] == "u" and word[1:].isdigit()]
            if item.type == "message":
                (user if item.role == "user" else answers).update(words)
        for word, count in user.items():
            self.expect(count == 1, f"{word} was said {count} times")
        for word, count in answers.items():
            limit = 2 if any(s.word == word and s.how in ("screen", "stock") for s in self.call.said) else 1
            self.expect(count <= limit, f"{word} was answered {count} times")
        for word, count in self.call.tool_runs.items():
            self.expect(count == 1, f"the tool for {word} ran {count} times")
        self.words_answered = {said.word for said in self.call.said if answers[said.word]}
        self.answered = len(self.words_answered)

    def take_words(self) -> None:
        """Whatever was said is a committed turn, an abandoned one, or its sayer was told that nobody is there."""
        committed = " ".join(
            str(fact.text) if fact.text is not None else ""
            for _, fact in self.call.facts
            if isinstance(fact, f.TurnCommitted)
        )
        known = set(committed.split())
        for _, fact in self.call.facts:
            if isinstance(fact, f.TurnTranscribed):
                known.update(fact.text.split())
        wordless = [
            at
            for at, fact in self.call.facts
            if (isinstance(fact, f.TurnAbandoned) or (isinstance(fact, f.TurnTranscribed) and fact.failed))
        ]
        told = [at for at, frame in self.frames if frame["type"] == "error"]
        for said in self.call.said:
            if said.word in known:
                continue
            end = said.ended + SETTLE_S
            was_told = any(said.began - 1 <= at <= end for at in wordless + told)
            refused = said.how == "spoken" and self.was_refused(said.began, said.ended)
            if not self.call.plan.is_recorded and self.was_deaf(said):
                self.settled[UNRECORDED] += 1
                continue
            self.expect(was_told or refused, f"{said.word} ({said.how}, {said.began:.1f} s) is lost")

    def was_deaf(self, said: Said) -> bool:
        """It was said to a provider that had frozen and was not yet found out: only a recording keeps audio so long."""
        losses = [at for at, fact in self.call.facts if isinstance(fact, f.LinkLost)]
        for connection in self.call.fake.connections:
            since = connection.frozen_at
            if since is not None:
                until = next((at for at in losses if at >= since), float("inf"))
                if said.began < until and said.ended > since:
                    return True
        return False

    def was_refused(self, began: float, ended: float) -> bool:
        """The caller spoke while the model could not be reached, and had been told so."""
        is_down = False
        for at, frame in self.frames:
            if at > ended:
                break
            if frame["type"] == "openline.link.lost":
                is_down = frame["permanent"]
            elif frame["type"] == "openline.link.opened":
                is_down = False
        return is_down

    def take_silence(self) -> None:
        """While a reply is owed the caller sees a sign of it, or of what is done about it, within the budget."""
        waiting: dict[str, float] = {}
        for at, frame in self.frames:
            name = (frame.get("response") or {}).get("id") or frame.get("response_id", "")
            kind = frame["type"]
            is_sign = kind in SIGNS or kind.startswith("response.")
            if name in waiting and is_sign:
                waited = at - waiting[name]
                self.expect(
                    waited <= BUDGET_S + SLACK_S, f"{name} was silent for {waited:.1f} s until {at:.1f} s"
                )
                waiting[name] = at
            elif kind in ("openline.link.lost", "openline.link.opened"):
                for other in waiting:
                    waited = at - waiting[other]
                    self.expect(
                        waited <= BUDGET_S + SLACK_S, f"{other} was silent {waited:.1f} s at {at:.1f} s"
                    )
                    waiting[other] = at
            if kind == "response.created":
                waiting[name] = at
            elif kind == "response.done":
                waiting.pop(name, None)

    # -- the log

    def take_links(self) -> None:
        """Every connection has its fact, and every one after the first says why."""
        requested = opened = lost = renewed = 0
        last: Fact | None = None
        for at, fact in self.call.facts:
            match fact:
                case f.LinkRequested():
                    requested += 1
                    is_first = requested == 1
                    explained = isinstance(last, f.LinkLost)
                    self.expect(
                        is_first or explained,
                        f"link {fact.link_epoch} of {at:.1f} s was asked for nobody knows why",
                    )
                case f.LinkLost():
                    lost += 1
                    self.expect(fact.why, f"link {fact.link_epoch} was lost at {at:.1f} s without a reason")
                case f.LinkOpened():
                    opened += 1
                case f.LinkRenewed():
                    renewed += 1
                    self.call.rotations += 1
                case _:
                    pass
            if isinstance(fact, f.LinkRequested | f.LinkLost | f.LinkOpened):
                last = fact
        self.expect(requested - lost in (0, 1), f"{requested} links asked for and {lost} lost")
        accepted = len(self.call.fake.connections)
        known = requested + self.call.spares
        self.expect(accepted <= known, f"{accepted} connections for {requested} links, {renewed} renewals")

    def take_history(self) -> None:
        for connection, expected in self.call.given:
            created = []
            for event in connection.events:
                if event["type"] == "conversation.item.create":
                    created.append(event["item"])
                elif event["type"] != "session.update":
                    break
            got = provider_history(created)
            self.expect(
                got[: len(expected)] == expected, f"a connection was given {got}, and {expected} was heard"
            )
        for got, expected in self.call.renewals:
            self.expect(
                got == expected, f"a renewed connection had {got[-3:]}, and {expected[-3:]} was heard"
            )

    def take_replay(self) -> None:
        _, steps = Session.replay(self.call.steps, digest=effect_digest)
        self.expect(steps == len(self.call.steps), "the log replays whole")

    def told(self) -> str:
        call = self.call
        faults = ", ".join(f"{name} {count}" for name, count in sorted(call.struck.items()))
        ends = ", ".join(f"{name} {count}" for name, count in sorted(self.settled.items()))
        return (
            f"{call.plan.seconds:.0f} s, {len(call.said)} turns, {self.answered} answered, "
            f"{sum(call.struck.values())} faults ({faults}); responses: {ends}; {call.rotations} renewals"
        )
