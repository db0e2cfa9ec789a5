"""The session: ``handle(input, now) -> Step``. Dispatch only; the decisions are in the modules beside it.

Calling rule (*one step at a time*): the owner calls ``handle``, makes the step durable, performs its
effects, and calls again at ``wake_at`` or with the next input. If ``handle`` raises, or the append of
its step fails, the session object is ahead of the log: drop it and ``rebuild`` from the log, never patch
it (crash-only).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, cast

from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core import items, lifecycle, responses, turns
from openline.core.draft import Draft
from openline.core.evolve import evolve
from openline.core.model import Item
from openline.core.state import State
from openline.core.value import Value
from openline.errors import IllegalTransition, ReplayMismatch
from openline.types import ConnectionId, Now, Seq, SessionId


class Step(NamedTuple):  # no dataclass: one is made for every input, and this costs a third
    """One input with what followed from it. ``wake_at``: monotonic ns of the next deadline, or None.

    ``first_seq`` is the seq of the first fact (if there is any). A step without facts is not stored.
    ``durable_wake_ms``: the earliest deadline that must survive a restart (Unix ms), 0 for none.
    """

    input: i.Input
    facts: tuple[f.Fact, ...]
    effects: tuple[e.Effect, ...]
    wake_at: int | None
    first_seq: Seq
    durable_wake_ms: int
    is_rejected: bool

    @property
    def last_seq(self) -> Seq:
        return Seq(self.first_seq + len(self.facts) - 1)


class StoredStep(Protocol):
    """A step read back from the log. ``effect_names`` and ``effect_digest`` are what was recorded of its effects.

    The input of a newer version has an unknown type: such a step folds, but does not replay.
    """

    @property
    def input(self) -> object: ...
    @property
    def now(self) -> Now: ...
    @property
    def facts(self) -> Sequence[f.Fact]: ...
    @property
    def effect_names(self) -> Sequence[str]: ...
    @property
    def effect_digest(self) -> int: ...


class RecordedStep(Value, frozen=True):
    """A StoredStep kept in memory, as tests and simulations do."""

    input: i.Input
    now: Now
    facts: tuple[f.Fact, ...]
    effect_names: tuple[str, ...] = ()
    effect_digest: int = 0


class Session:
    """One durable conversation. ``state`` is for reading only; it changes in ``handle`` alone."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State()

    def handle(self, input_: i.Input, now: Now) -> Step:
        """What follows from ``input_`` at ``now``: facts to store, effects to perform after that.

        Raises IllegalTransition or AssertionError only for a bug of ours; see the calling rule.
        """
        first_seq = Seq(self.state.seq + 1)
        draft = self._decide(input_, now)
        return Step(
            input_,
            tuple(draft.facts),
            tuple(draft.effects),
            lifecycle.wake_at(draft),
            first_seq,
            lifecycle.durable_wake_ms(draft),
            draft.is_rejected,
        )

    def _decide(self, input_: i.Input, now: Now) -> Draft:
        draft = Draft(self.state, now)
        command: str | None = getattr(input_, "command", None)
        if command is None:
            _DECIDE[type(input_)](draft, input_)
        else:
            self._command(draft, input_, command)
        return draft

    def _command(self, draft: Draft, input_: i.Input, command: str) -> None:
        conn: ConnectionId = getattr(input_, "conn", ConnectionId(""))
        if self._may_command(draft, conn, command):
            _DECIDE[type(input_)](draft, input_)
        if command:
            self._receipt(draft, conn, command)

    def _may_command(self, draft: Draft, conn: ConnectionId, command: str) -> bool:
        """An ended session takes no commands; an observer gives none, nor does a connection that is gone."""
        sender = self.state.connections.get(conn)
        if self.state.status == "ended":
            draft.reject(conn, command, "session_ended", "The session has ended; start a new one.")
        elif conn and (sender is None or sender.role == "observer"):
            draft.is_rejected = True
        return not draft.is_rejected

    def _receipt(self, draft: Draft, conn: ConnectionId, command: str) -> None:
        connection = self.state.connections.get(conn)
        if connection is not None and connection.opted_in:
            draft.effect(e.SendReceipt(conn, command, "rejected" if draft.is_rejected else "accepted"))

    def knows_command(self, command: str) -> bool:
        """An opted-in client's command that already has its outcome, on whatever connection it came."""
        return command in self.state.commands

    @classmethod
    def rebuild(cls, steps: Iterable[StoredStep], inherited: tuple[Item, ...] = ()) -> Session:
        """The session that wrote ``steps``: the fold of their facts.

        ``inherited``: for a fork, the conversation at its origin (``conversation_at``).
        """
        session = cls()
        session.state.inherited = inherited
        for step in steps:
            for fact in step.facts:
                evolve(session.state, fact, step.now)
        return session

    @classmethod
    def replay(
        cls, steps: Iterable[StoredStep], digest: Callable[[Sequence[e.Effect]], int] | None = None
    ) -> tuple[Session, int]:
        """Run every stored input again and compare facts and effects; the session and the number of steps.

        Raises ReplayMismatch naming the first step that differs. ``digest`` compares effects in full;
        without it their names are compared.
        """
        session = cls()
        count = 0
        for stored in steps:
            first_seq = session.state.seq + 1
            if type(stored.input) not in _DECIDE:
                message = (
                    f"step at seq {first_seq}: its input is of a newer version; replay it with that version."
                )
                raise ReplayMismatch(message, seq=first_seq)
            try:
                # Not ``handle``: nobody waits for a deadline here, and looking for one is a fifth of the time.
                draft = session._decide(cast(i.Input, stored.input), stored.now)
            except Exception as error:  # what other code wrote may lead ours anywhere; the step must be named
                raise ReplayMismatch(_failure(error, stored, first_seq), seq=first_seq) from error
            count += 1
            if draft.facts != list(stored.facts):
                raise ReplayMismatch(_difference(draft, stored, first_seq), seq=first_seq)
            if digest is not None and digest(draft.effects) == stored.effect_digest:
                continue  # Their names are part of the digest.
            names = [type(effect).__name__ for effect in draft.effects]
            if digest is not None or names != list(stored.effect_names):
                raise ReplayMismatch(
                    f"step at seq {first_seq} ({type(stored.input).__name__}): expected effects "
                    f"{list(stored.effect_names)}, got {names}.",
                    seq=first_seq,
                )
        return session, count


def origin_of(steps: Sequence[StoredStep]) -> tuple[SessionId, Seq] | None:
    """Where a fork goes on from: a session, and after which of its facts. None: it is no fork."""
    facts = (fact for step in steps for fact in step.facts)
    return next(((fact.parent, fact.parent_seq) for fact in facts if isinstance(fact, f.SessionForked)), None)


def conversation_at(
    steps: Iterable[StoredStep], seq: Seq, inherited: tuple[Item, ...] = ()
) -> tuple[Item, ...]:
    """The conversation as it was after fact ``seq`` of this log: what a fork from there inherits."""
    state = State(inherited=inherited)
    for step in steps:
        for fact in step.facts[: seq - state.seq]:
            evolve(state, fact, step.now)
    return tuple(state.conversation())


def _failure(error: Exception, stored: StoredStep, first_seq: int) -> str:
    """Only our own words: an error of the language may quote what people said."""
    expected = [fact.TYPE for fact in stored.facts]
    what = str(error) if isinstance(error, IllegalTransition) else type(error).__name__
    return f"step at seq {first_seq} ({type(stored.input).__name__}): expected facts {expected}, got {what}"


def _difference(draft: Draft, stored: StoredStep, first_seq: int) -> str:
    """Names and positions only: a fact may hold what people said."""
    expected, got = [fact.TYPE for fact in stored.facts], [fact.TYPE for fact in draft.facts]
    where = f"step at seq {first_seq} ({type(stored.input).__name__})"
    if expected != got:
        return f"{where}: expected facts {expected}, got {got}."
    pairs = enumerate(zip(stored.facts, draft.facts, strict=True))
    offset, old, new = next((offset, old, new) for offset, (old, new) in pairs if old != new)
    fields = [name for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)]
    return f"{where}: fact {first_seq + offset} ({old.TYPE}) differs in {fields}."


def _create_response(draft: Draft, input_: i.CreateResponse) -> None:
    responses.create_response(draft, input_.request, input_.conn, input_.command)


def _segment(draft: Draft, input_: i.SegmentRecorded) -> None:
    draft.fact(f.SegmentRecorded(input_.track, input_.start, input_.samples, input_.file, input_.sha256))


def _media_dropped(draft: Draft, input_: i.MediaDropped) -> None:
    draft.fact(f.MediaDropped(input_.lane, input_.dropped_ms, input_.policy))


_DECIDE: dict[type, Callable[..., None]] = {
    i.OpenSession: lifecycle.open_session,
    i.TakeOwnership: lifecycle.take_ownership,
    i.Attach: lifecycle.attach,
    i.Detach: lifecycle.detach,
    i.EndSession: lifecycle.end_session,
    i.TimePassed: lifecycle.time_passed,
    i.UpdateConfig: items.update_config,
    i.CreateItem: items.create_item,
    i.DeleteItem: items.delete_item,
    i.TruncateItem: items.truncate_item,
    i.CommitAudio: turns.commit_audio,
    i.ClearAudio: turns.clear_audio,
    i.CreateResponse: _create_response,
    i.CancelResponse: responses.cancel_response,
    i.LinkOpened: lifecycle.link_opened,
    i.LinkLost: lifecycle.link_lost,
    i.LinkRenewed: lifecycle.link_renewed,
    i.SpeechStarted: turns.speech_started,
    i.SpeechStopped: turns.speech_stopped,
    i.TurnFinal: turns.turn_final,
    i.TurnFailed: turns.turn_failed,
    i.ReplyPrepared: turns.reply_prepared,
    i.MessageStarted: responses.message_started,
    i.MessageProgress: responses.message_progress,
    i.MessageFinished: responses.message_finished,
    i.CallStarted: responses.call_started,
    i.CallFinished: responses.call_finished,
    i.ResponseGenerated: responses.response_generated,
    i.ResponseReleased: responses.response_released,
    i.ResponseFailed: responses.response_failed,
    i.Heard: responses.heard,
    i.ToolSettled: responses.tool_settled,
    i.SegmentRecorded: _segment,
    i.MediaDropped: _media_dropped,
}
