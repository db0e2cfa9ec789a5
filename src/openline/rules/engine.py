"""What the small model answers: a pure function of the request.

In this order: what the caller of the API forces; results that have not been told; then the caller's last
turn, as a scripted call, an answer to a question of ours, a rule, something to remember or recall, a tool.
A question of ours ("For which part?") is no state: it is found again by working the previous turn out anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from openline.core.model import Item, ToolSpec
from openline.ports import ModelRequest
from openline.rules import memory
from openline.rules.arguments import Draft, answer, draft_call, fill_form, finish, missing_of
from openline.rules.match import Match, RuleBook, number_in
from openline.rules.numbers import find_numbers, say_number
from openline.rules.results import Result, results_in, say_results
from openline.rules.schema import accepts, as_object, parse_schema
from openline.rules.words import name_words, say_list, sentence, straight

_MAX_LOOK_BACK = 6
"""Questions of ours in a row that are traced back; more means that we do not understand each other."""
_MAX_ASKS = 3
_MAX_CALLS = 8
_MAX_COUNT = 100
_MAX_TOOLS_NAMED = 6
_NAMELESS = "Openline"
_PERSONA = re.compile(
    r"\b(?:[Yy]our name is|[Yy]ou are called|[Cc]all yourself|[Yy]ou are|[Yy]ou're)\s+"
    r"([A-Z][\w'-]*(?:\s[A-Z][\w'-]*){0,2})"
)
_TOLD_TO_SAY = re.compile(
    r"\b(?:say|greet the (?:caller|user|customer) with|reply with|respond with|answer with)"
    r"(?: exactly| only| just| this| the following)*\s*:?\s*(?:\"([^\"]+)\")",
    re.IGNORECASE,
)
_SAY_EXACTLY = re.compile(r"\b(?:say|reply|respond)(?: with)? exactly:\s*(.+)", re.IGNORECASE | re.DOTALL)
_CALL = re.compile(r"\s*(?:please\s+)?call\s+([\w.-]+)(?:\s+with\s+)?", re.IGNORECASE)
_CLAUSES = re.compile(r"\s*(?:[.;!?]\s+|,?\s*\b(?:and then|and also|and|then|also)\b\s+)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """``arguments`` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What to say, then what to call. Either may be empty, not both."""

    text: str = ""
    calls: tuple[PlannedCall, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ask:
    """A question of ours: ``drafts[at]`` lacks something. ``asks`` counts how often we have asked."""

    question: str
    drafts: tuple[Draft, ...]
    at: int
    asks: int = 1


@dataclass(frozen=True, slots=True)
class _Plan:
    """A reply with what it leaves open."""

    reply: Reply
    ask: _Ask | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a sentence (characters) that is about ``tool``, or about none."""

    tool: ToolSpec | None
    start: int
    end: int


_ItemTest = Callable[[Item], bool]


class RuleEngine:
    """Immutable; safe to share."""

    def __init__(self, book: RuleBook) -> None:
        self.book = book

    def decide(self, request: ModelRequest) -> Reply:
        """The reply. At most some milliseconds for a hundred items and twenty tools.

        Where JSON is asked for, the text is one object and nothing else: valid for the schema if there is one.
        """
        reply = self._decide(request)
        if not request.text_format:
            return reply
        return Reply(calls=reply.calls) if reply.calls else Reply(self._in_form(reply.text, request))

    def _in_form(self, text: str, request: ModelRequest) -> str:
        form = parse_schema(request.text_format)
        schema = as_object(form["schema"]) if "schema" in form else {}
        if _json_end(text, 0) == len(text) and (not schema or accepts(schema, json.loads(text), schema)):
            return text
        if not schema:
            return json.dumps({"answer": text}, ensure_ascii=False)
        said = next((item.text for item in reversed(request.items) if item.role == "user"), "")
        wanted = ToolSpec(str(form["name"]), str(form.get("description", "")), json.dumps(schema))
        return fill_form(self.book, wanted, said, text)

    def _decide(self, request: ModelRequest) -> Reply:
        choice, forced_name = parse_choice(request.tool_choice)
        turn = _Turn(self.book, request, () if choice == "none" else request.tools)
        if choice in ("required", "function"):
            forced = turn.forced(forced_name)
            if forced is not None:
                return forced
        told = told_to_say(request.instructions)
        if told:
            return Reply(told)
        return turn.reply()


def parse_choice(text: str) -> tuple[str, str]:
    """("auto" | "none" | "required" | "function", name). What cannot be read counts as auto."""
    try:
        found: object = json.loads(text)
    except ValueError:
        found = text
    if isinstance(found, str):
        return (found, "") if found in ("none", "required") else ("auto", "")
    if isinstance(found, dict):
        inner = found.get("function")
        name = inner.get("name") if isinstance(inner, dict) else found.get("name")
        if isinstance(name, str):
            return "function", name
    return "auto", ""


def persona_of(instructions: str) -> str:
    """The name that instructions give the agent ("You are Nora, …"), or Openline."""
    found = _PERSONA.search(instructions)
    return found.group(1) if found else _NAMELESS


def told_to_say(instructions: str) -> str:
    """The words that instructions want said literally: ``Say exactly: …`` or ``Greet the caller with "…"``."""
    text = straight(instructions)
    quoted = _TOLD_TO_SAY.search(text)
    if quoted is not None:
        return quoted.group(1).strip()
    exactly = _SAY_EXACTLY.search(text)
    return exactly.group(1).strip() if exactly else ""


class _Turn:
    """One request being answered."""

    def __init__(self, book: RuleBook, request: ModelRequest, tools: Sequence[ToolSpec]) -> None:
        self.book = book
        self.speech = book.data.speech
        self.items = request.items
        self.instructions = request.instructions
        self.tools = tuple(tools)
        self.is_parallel = request.parallel_tool_calls

    # -- from the end of the conversation

    def reply(self) -> Reply:
        user = self._last(lambda item: item.role == "user")
        assistant = self._last(lambda item: item.role == "assistant")
        results = results_in(self.items[max(user, assistant) + 1 :], self.items)
        is_answered = user < assistant
        if results:
            text = say_results(self.book, results)
            call = self._last(lambda item: item.type in ("function_call", "mcp_call"))
            if not is_answered and call < user:  # the caller spoke while the tool ran
                later = self._plan(user, 0).reply
                return replace(later, text=f"{text} {later.text}".strip())
            return Reply(text)
        if user >= 0 and not is_answered:
            if any(item.type == "function_call" for item in self.items[user + 1 :]):
                return Reply(self.speech.waiting)
            return self._plan(user, 0).reply
        untold = self._untold(user, assistant)
        if untold:
            return Reply(say_results(self.book, untold))
        return Reply(self._on_own_initiative(max(user, assistant)))

    def _untold(self, user: int, assistant: int) -> list[Result]:
        """Results since the caller's turn that no reply tells of: they came while one was being made.

        The Agents SDKs ask for a reply after each of several results, and do not wait for the others.
        """
        replies = (item.text for item in self.items[user + 1 :] if item.role == "assistant")
        told = " ".join(replies).lower()
        results = results_in(self.items[user + 1 : max(user, assistant)], self.items)
        return [result for result in results if say_results(self.book, [result]).lower() not in told]

    def _on_own_initiative(self, last: int) -> str:
        """Nobody is waiting for an answer: tell news if there are any, greet, or ask who is there."""
        if last < 0:
            rule = next(rule.row for rule in self.book.rules if rule.row.name == "greeting")
            return rule.say[0].format(persona=persona_of(self.instructions))
        news = [item.text for item in self.items[last + 1 :] if item.role == "system" and item.text]
        return self.speech.news.format(text=sentence(news[-1])) if news else self.speech.idle

    def _last(self, is_wanted: _ItemTest) -> int:
        return next((at for at in range(len(self.items) - 1, -1, -1) if is_wanted(self.items[at])), -1)

    # -- one turn of the caller

    def _plan(self, at: int, depth: int) -> _Plan:
        """The reply to the user item at ``at``, given what came before it."""
        text = self.items[at].text
        scripted = self._scripted(text)
        if scripted is not None:
            return _Plan(scripted)
        words = self.book.plain(text)
        if not words:
            return _Plan(Reply(self.speech.heard_nothing))
        rule = self.book.find_rule(words)
        pending = self._pending(at, depth) if depth < _MAX_LOOK_BACK else None
        if pending is not None:
            answered = self._answered(pending, text, words, rule)
            if answered is not None:
                return answered
        if not any(self.book.covers_name(words, tool) for tool in self.tools):
            remembered = self._remembered(at, text)
            if remembered:
                return _Plan(Reply(remembered))
            if rule is not None and not rule.rule.after_tools:
                keeps = pending if rule.rule.action == "repeat" else None
                return _Plan(Reply(self._say_rule(rule, at)), keeps)
        drafts = self._drafts(text)
        if drafts:
            return self._call_or_ask(drafts, 1)
        if rule is not None:
            return _Plan(Reply(self._say_rule(rule, at)))
        return _Plan(Reply(self._unknown(text, at)))

    def _pending(self, at: int, depth: int) -> _Ask | None:
        """Our question that this turn may answer: the previous turn's, if it was really spoken."""
        before = next((i for i in range(at - 1, -1, -1) if self.items[i].role == "user"), -1)
        if before < 0:
            return None
        between = self.items[before + 1 : at]
        if any(item.type != "message" for item in between):
            return None
        spoken = self.book.plain(" ".join(item.text for item in between if item.role == "assistant"))
        if not spoken:
            return None
        ask = self._plan(before, depth + 1).ask
        if ask is None:
            return None
        asked = self.book.plain(ask.question)
        # Cut short is enough ("For which"), and so is a question inside a longer reply.
        is_ours = asked[: len(spoken)] == spoken or spoken[-len(asked) :] == asked
        return ask if is_ours else None

    def _answered(self, ask: _Ask, text: str, words: list[str], rule: Match | None) -> _Plan | None:
        draft = ask.drafts[ask.at]
        missing = missing_of(self.book, draft)
        if not missing or (rule is not None and not rule.rule.may_answer):
            return None
        other = self.book.best_tool(words, self.tools)
        if other is not None and other is not draft.tool and self.book.covers_name(words, other):
            return None
        filled = answer(self.book, draft, missing[0], text)
        if filled is None:
            if other is not None or ask.asks >= _MAX_ASKS:
                return None
            question = missing[0].question(self.book)
            return self._asking(replace(ask, asks=ask.asks + 1), self.speech.again.format(question=question))
        drafts = (*ask.drafts[: ask.at], filled, *ask.drafts[ask.at + 1 :])
        return self._call_or_ask(drafts, ask.asks)

    def _call_or_ask(self, drafts: tuple[Draft, ...], asks: int) -> _Plan:
        for at, draft in enumerate(drafts):
            missing = missing_of(self.book, draft)
            if missing:
                question = missing[0].question(self.book)
                return self._asking(_Ask(question, drafts, at, asks), question)
        calls = [PlannedCall(d.tool.name, made) for d in drafts for made in finish(self.book, d)]
        calls = list(dict.fromkeys(calls))
        return _Plan(Reply(calls=tuple(calls[: _MAX_CALLS if self.is_parallel else 1])))

    def _asking(self, ask: _Ask, question: str) -> _Plan:
        return _Plan(Reply(question), replace(ask, question=question))

    # -- tools

    def _drafts(self, text: str) -> tuple[Draft, ...]:
        """One draft for each part of the sentence that is about a tool; other parts belong to the one before."""
        plain = straight(text)
        parts: list[_Part] = []
        for start, end in _clause_spans(plain):
            tool = self.book.best_tool(self.book.topic(plain[start:end]), self.tools)
            before = parts[-1] if parts else None
            if before is None or (before.tool is not None and tool is not None):
                parts.append(_Part(tool, start, end))
            elif before.tool is not None and self._is_one_more(before, plain, start, end):
                parts.append(_Part(before.tool, start, end))
            else:
                parts[-1] = _Part(before.tool or tool, before.start, end)
        if all(part.tool is None for part in parts):
            parts = [_Part(self.book.best_tool(self.book.topic(plain), self.tools), 0, len(plain))]
        return tuple(
            draft_call(self.book, part.tool, plain[part.start : part.end])
            for part in parts
            if part.tool is not None
        )

    def _is_one_more(self, before: _Part, plain: str, start: int, end: int) -> bool:
        """ "order five bolts | two hinges": both halves are whole calls, each with a number of its own."""
        if before.tool is None or not find_numbers(self.book.plain(plain[start:end])):
            return False
        halves = [
            draft_call(self.book, before.tool, plain[a:b])
            for a, b in ((before.start, before.end), (start, end))
        ]
        is_mixed = all({type(value) for value in half.values.values()} >= {int, str} for half in halves)
        return is_mixed and not any(missing_of(self.book, half) for half in halves)

    def forced(self, name: str) -> Reply | None:
        """A call that is valid for the tool's schema, filled from the last turn as far as it goes."""
        user = self._last(lambda item: item.role == "user")
        text = self.items[user].text if user >= 0 else ""
        scripted = self._scripted(text)
        if scripted is not None and scripted.calls and name in ("", scripted.calls[0].name):
            return scripted
        named = next((tool for tool in self.tools if tool.name == name), None)
        if name and named is None:
            return Reply(self.speech.no_tool.format(name=" ".join(name_words(name)))) if self.tools else None
        if named is None:
            drafts = self._drafts(text)
            if drafts and not any(missing_of(self.book, draft) for draft in drafts):
                return self._call_or_ask(drafts, 1).reply
            named = self._pending_tool(user) or (drafts[0].tool if drafts else next(iter(self.tools), None))
        if named is None:
            return None
        calls = [
            PlannedCall(named.name, made) for made in finish(self.book, self._draft_of(named, text, user))
        ]
        return Reply(calls=tuple(calls[: _MAX_CALLS if self.is_parallel else 1]))

    def _pending_tool(self, user: int) -> ToolSpec | None:
        ask = self._pending(user, 0) if user >= 0 else None
        return ask.drafts[ask.at].tool if ask is not None else None

    def _draft_of(self, tool: ToolSpec, text: str, user: int) -> Draft:
        ask = self._pending(user, 0) if user >= 0 else None
        if ask is not None and ask.drafts[ask.at].tool is tool:
            missing = missing_of(self.book, ask.drafts[ask.at])
            filled = answer(self.book, ask.drafts[ask.at], missing[0], text) if missing else None
            if filled is not None:
                return filled
        return draft_call(self.book, tool, text)

    def _scripted(self, text: str) -> Reply | None:
        """``call NAME with JSON and call NAME with JSON``: exactly those calls, JSON as it was written."""
        calls: list[PlannedCall] = []
        at = 0
        while True:
            head = _CALL.match(text, at)
            tool = self._named(head.group(1)) if head is not None else None
            if head is None or not self.tools:
                return None
            has_json = "with" in head.group().lower().split() or text[head.end() : head.end() + 1] == "{"
            if tool is None:
                is_script = text[head.end() : head.end() + 1] == "{"
                name = " ".join(name_words(head.group(1)))
                return Reply(self.speech.no_tool.format(name=name)) if is_script else None
            arguments, at = "{}", head.end()
            if has_json:
                end = _json_end(text, at)
                if end < 0:
                    is_script = text[at : at + 1] in ("{", "[")
                    spoken = self.speech.bad_arguments.format(name=" ".join(name_words(tool.name)))
                    return Reply(spoken) if is_script else None
                arguments, at = text[at:end], end
            calls.append(PlannedCall(tool.name, arguments))
            rest = text[at:].strip().rstrip(".").strip()
            joint = re.match(r"\s*,?\s*and\s+(?=call\s)", text[at:], re.IGNORECASE)
            if joint is None:
                # "call stock with five bolts" is a sentence, no script.
                return Reply(calls=tuple(calls if self.is_parallel else calls[:1])) if not rest else None
            at += joint.end()

    def _named(self, name: str) -> ToolSpec | None:
        return next((tool for tool in self.tools if tool.name == name), None)

    # -- memory and rules

    def _user_texts(self, before: int) -> list[str]:
        return [item.text for item in self.items[:before] if item.role == "user"]

    def _remembered(self, at: int, text: str) -> str:
        fact = memory.told(self.book, text)
        if fact is not None:
            if not fact.subject:
                return self.speech.told_other.format(value=fact.value)
            if fact.key == ("name",):
                return self.speech.told_name.format(value=fact.value)
            return self.speech.told.format(subject=fact.subject, verb=fact.verb, value=fact.value)
        if not memory.may_recall(self.book, text):
            return ""
        known = memory.facts(self.book, self._user_texts(at))
        question = memory.asked(self.book, text)
        if question is not None and not question.key:
            said = " ".join(self._say_fact(fact) for fact in known)
            return self.speech.all_known.format(facts=said) if known else self.speech.nothing_known
        fact = memory.recall(self.book, text, known)
        return self._say_fact(fact) if fact is not None else ""

    def _say_fact(self, fact: memory.Fact) -> str:
        if not fact.subject:
            return sentence(fact.value)
        return sentence(self.speech.known.format(subject=fact.subject, verb=fact.verb, value=fact.value))

    def _unknown(self, text: str, at: int) -> str:
        question = memory.asked(self.book, text)
        if question is not None and question.subject.startswith("your "):
            return self.speech.unknown.format(subject=question.subject)
        lines = self.speech.fallback_tools if self.tools else self.speech.fallback
        heard = " ".join(text.split()).rstrip(".!?")[:200]
        return self._in_turn(lines, at).format(heard=heard, tools=self._tool_names())

    def _in_turn(self, lines: Sequence[str], at: int) -> str:
        """Another one each time, without chance: by the number of turns so far."""
        return lines[len(self._user_texts(at)) % len(lines)]

    def _tool_names(self) -> str:
        names = [" ".join(name_words(tool.name)) for tool in self.tools[:_MAX_TOOLS_NAMED]]
        more = len(self.tools) - len(names)
        return say_list([*names, f"{say_number(more)} more"] if more else names)

    def _say_rule(self, match: Match, at: int) -> str:
        values = dict(match.slots)
        persona = persona_of(self.instructions)
        values["persona"] = persona
        values["introduction"] = f"{'' if persona == _NAMELESS else persona + ', '}the small built-in voice"
        values["last"] = self._spoken_before(at)
        values["tools_sentence"] = f" I can also use {self._tool_names()}." if self.tools else ""
        action = match.rule.action
        if action in ("count", "count_down"):
            values["n"] = _count(values, is_down=action == "count_down")
        elif action == "spell":
            values["text"] = sentence(", ".join(letter for letter in values["text"] if letter.isalnum()))
        elif action == "echo":
            values["text"] = self._echo(self.items[at].text, values["text"])
        elif action == "go_on":
            return self._rest_of_cut_reply(at) or self._in_turn(match.rule.say, at)
        return self._in_turn(match.rule.say, at).format(**values)

    def _rest_of_cut_reply(self, at: int) -> str:
        """What the caller did not hear of the last reply that was cut, from the start of its broken sentence.

        The items hold only what was heard, so the whole is worked out anew from the turn before it.
        """
        cut = next((i for i in range(at - 1, -1, -1) if self.items[i].heard_ms is not None), -1)
        asked = next((i for i in range(cut - 1, -1, -1) if self.items[i].role == "user"), -1)
        rule = self.book.find_rule(self.book.plain(self.items[asked].text)) if asked >= 0 else None
        if rule is None or rule.rule.action == "go_on":
            return ""
        whole, heard = self._say_rule(rule, asked), self.book.plain(self.items[cut].text)
        if self.book.plain(whole)[: len(heard)] != heard:
            return ""
        parts = re.split(r"(?<=[.!?])\s+", whole)
        said = 0
        for index, part in enumerate(parts):
            said += len(self.book.plain(part))
            if said > len(heard):
                return " ".join(parts[index:])
        return ""

    def _spoken_before(self, at: int) -> str:
        texts = [item.text for item in self.items[:at] if item.role == "assistant" and item.text]
        return texts[-1] if texts else "I have not said anything yet."

    def _echo(self, text: str, words: str) -> str:
        """The words as they were written, if they can be found there; else as they were matched."""
        tail = straight(text).strip().strip("\"'")
        cut = len(tail)
        for size in range(1, len(tail) + 1):
            if " ".join(self.book.plain(tail[-size:])) == words and (
                size == len(tail) or not tail[-size - 1].isalnum()
            ):
                cut = size
                break
        return sentence(tail[-cut:].strip().strip("\"'")) if cut < len(tail) else sentence(words)


def _clause_spans(text: str) -> list[tuple[int, int]]:
    """The stretches between "and", "then" and sentence ends, quoted text kept whole."""
    spans: list[tuple[int, int]] = []
    start = 0
    for found in _CLAUSES.finditer(text):
        is_quoted = text.count('"', 0, found.start()) % 2 == 1
        if found.start() > start and not is_quoted and found.end() < len(text):
            spans.append((start, found.start()))
            start = found.end()
    return [*spans, (start, len(text))]


def _json_end(text: str, at: int) -> int:
    """Where the JSON object that begins at ``at`` ends; -1 if there is none."""
    try:
        found, end = json.JSONDecoder().raw_decode(text, at)
    except ValueError:
        return -1
    return end if isinstance(found, dict) else -1


def _count(values: dict[str, str], *, is_down: bool) -> str:
    last = number_in(values.get("n", ""))
    first = number_in(values.get("m") or "one")
    assert last is not None and first is not None, "the rule book lets only numbers through"
    numbers = list(range(max(last, 1), 0, -1) if is_down else range(first, last + 1))
    if len(numbers) > _MAX_COUNT:
        return f"That is too far for me. I count {say_number(_MAX_COUNT)} numbers at most."
    return sentence(", ".join(say_number(number) for number in numbers)) or "There is nothing to count."
