"""The rule book, its patterns, and which declared tool a sentence is about."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec

from openline.core.model import ToolSpec
from openline.errors import ConfigError
from openline.rules.numbers import read_number
from openline.rules.schema import Schema, as_list, as_object, parse_schema, resolve
from openline.rules.words import find_run, is_near, name_words, plain, stem

RULES_FILE = Path(__file__).with_name("rules.toml")
TOOL_THRESHOLD = 1.0
"""Score from which a tool is used. One telling word of a two-word name gives 1.4, a generic one 0.4."""
_MAX_PATTERN_WORDS = 60
"""Longer turns match no pattern: nobody says a command in 60 words, and it bounds backtracking."""
_MAX_KNOWN_TOOLS = 512
_SYNONYM = 0.6
"""What a synonym counts beside the word itself: "order … left hinges" is about order_part, not the stock."""
_SUM = re.compile(r"\d\s*\)*\s*[-+*/^%]+\s*\(*\s*\d")


Phrases = dict[str, list[list[str]]]
"""Phrases as words, by their first (or last) word."""


class KindRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    words: str = ""
    after: list[str] = []
    ask: str = "For which {name}?"
    rest: bool = False
    is_expression: bool = False

    def names(self) -> frozenset[str]:
        return frozenset(stem(word) for word in self.words.split())


class RuleRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    when: list[str]
    say: list[str]
    action: str = ""
    after_tools: bool = False
    cancels: bool = False
    may_answer: bool = False


class Speech(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sentences with ``{slots}``; the data file says when each is used."""

    number_question: str
    count_question: str
    yes_no_question: str
    choice_question: str
    list_question: str
    again: str
    done: str
    nothing_found: str
    found: str
    found_more: str
    value: str
    bare_value: str
    failed: str
    failed_silently: str
    for_which: str
    waiting: str
    news: str
    idle: str
    no_tool: str
    bad_arguments: str
    told_name: str
    told: str
    told_other: str
    known: str
    unknown: str
    nothing_known: str
    all_known: str
    heard_nothing: str
    fallback: list[str]
    fallback_tools: list[str]


class MemoryWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    is_: list[str] = msgspec.field(name="is")
    my: list[str]
    keys: list[str]
    remember: list[str]
    tail: list[str]


class WordLists(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stop: str
    generic: str
    queries: str
    actions: str
    negations: str
    yes: str
    no: str


class Polite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    before: list[str]
    after: list[str]


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data file as it is written."""

    words: WordLists
    contractions: dict[str, str]
    polite: Polite
    synonyms: dict[str, str]
    kind: list[KindRow]
    default_kind: KindRow
    speech: Speech
    memory: MemoryWords
    rule: list[RuleRow]


# ----------------------------------------------------------------------------------------------- patterns

_PIECE = re.compile(r"\[([^\]]*)\]|\(([^()]*(?:\([^()]*\)[^()]*)*)\)|\{(\w+)(:number)?\}|(\*)|([\w']+)")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of the data file as a regular expression over `` one two three`` (each word with a blank)."""
    return re.compile(_expression(pattern) + r"\Z")


def _expression(pattern: str) -> str:
    made = ""
    for optional, choices, slot, number, anything, word in _PIECE.findall(pattern):
        if optional:
            made += f"(?:{_expression(optional)})?"
        elif choices:
            made += "(?:" + "|".join(_expression(choice) for choice in _split_choices(choices)) + ")"
        elif slot:
            # A number takes few words; a bound keeps "count to N" from swallowing the rest.
            made += rf"(?P<{slot}>(?: \S+){{1,8}})" if number else rf"(?P<{slot}>(?: \S+)+)"
        elif anything:
            made += r"(?: \S+)*?"
        else:
            made += f" {re.escape(word)}"
    return made


def _split_choices(text: str) -> list[str]:
    depth, parts = 0, [""]
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


@dataclass(frozen=True, slots=True)
class Rule:
    row: RuleRow
    patterns: tuple[re.Pattern[str], ...]
    numbers: frozenset[str]
    """Slots that must hold a number: "count to twelve please" is not "count to {n}"."""


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that fits, with the words in its slots; ``text`` is what the slots were taken from."""

    rule: RuleRow
    slots: dict[str, str]


# ------------------------------------------------------------------------------------------------ the book


@dataclass(frozen=True)
class RuleBook:
    """The data file, read and compiled. Immutable but for its cache of tool words."""

    data: Data
    rules: tuple[Rule, ...]
    _tools: dict[ToolSpec, ToolWords] = field(default_factory=dict)

    @cached_property
    def stop(self) -> frozenset[str]:
        return frozenset(self.data.words.stop.split())

    @cached_property
    def generic(self) -> frozenset[str]:
        return frozenset(stem(word) for word in self.data.words.generic.split())

    @cached_property
    def queries(self) -> frozenset[str]:
        return frozenset(self.data.words.queries.split())

    @cached_property
    def actions(self) -> frozenset[str]:
        return frozenset(self.data.words.actions.split())

    @cached_property
    def canonical(self) -> dict[str, str]:
        """Word, and stem where that is free, to its group: "times" is arithmetic and "time" is not."""
        found = {word: stem(key) for key, row in self.data.synonyms.items() for word in row.split()}
        for word, group in list(found.items()):
            found.setdefault(stem(word), group)
        return found

    @cached_property
    def polite_before(self) -> Phrases:
        return _by_end(self.data.polite.before, is_front=True)

    @cached_property
    def polite_after(self) -> Phrases:
        return _by_end(self.data.polite.after, is_front=False)

    @cached_property
    def memory_tail(self) -> Phrases:
        return _by_end(self.data.memory.tail, is_front=False)

    @cached_property
    def remember_phrases(self) -> list[list[str]]:
        return sorted((phrase.split() for phrase in self.data.memory.remember), key=len, reverse=True)

    @cached_property
    def fact_hint(self) -> re.Pattern[str]:
        """Found in every turn that could state a fact; see ``memory.told``."""
        memory = self.data.memory
        starts = [*memory.my, *memory.remember, "call", "dont", "don't"]
        starts += [part for key in memory.keys for part in (key.split()[0], key)]
        return re.compile(r"\b(?:" + "|".join(map(re.escape, starts)) + ")", re.IGNORECASE)

    @cached_property
    def kinds(self) -> tuple[tuple[frozenset[str], KindRow], ...]:
        return tuple((row.names(), row) for row in self.data.kind)

    def plain(self, text: str) -> list[str]:
        return plain(text, self.data.contractions)

    def meaning(self, word: str) -> str:
        """What a word counts as when tools are chosen: its synonym group, or its stem."""
        stemmed = stem(word)
        return self.canonical.get(word) or self.canonical.get(stemmed, stemmed)

    def topic(self, text: str) -> list[str]:
        """The words of ``text`` for choosing a tool; sums written with signs count as the word arithmetic."""
        return self.plain(text) + (["arithmetic"] if _SUM.search(text) else [])

    def _variants(self, words: list[str]) -> list[list[str]]:
        """As said, without politeness behind, before, and both; never without everything."""
        back = strip_phrases(words, self.polite_after, is_front=False)
        front = strip_phrases(words, self.polite_before, is_front=True)
        both = strip_phrases(back, self.polite_before, is_front=True)
        found: list[list[str]] = []
        for said in (words, back, both, front):
            if said and said not in found:
                found.append(said)
        return found

    def find_rule(self, words: Sequence[str]) -> Match | None:
        """The first rule that the whole turn fits, as said or without politeness."""
        if not words or len(words) > _MAX_PATTERN_WORDS:
            return None
        for said in self._variants(list(words)):
            text = "".join(f" {word}" for word in said)
            for rule in self.rules:
                for pattern in rule.patterns:
                    found = pattern.match(text)
                    if found is not None:
                        slots = {name: (value or "").strip() for name, value in found.groupdict().items()}
                        if all(number_in(slots[name]) is not None for name in rule.numbers & slots.keys()):
                            return Match(rule.row, slots)
        return None

    # -- tools

    def tool_words(self, tool: ToolSpec) -> ToolWords:
        known = self._tools.get(tool)
        if known is None:
            if len(self._tools) >= _MAX_KNOWN_TOOLS:
                self._tools.clear()
            known = self._tools[tool] = self._index(tool)
        return known

    def _index(self, tool: ToolSpec) -> ToolWords:
        schema = parse_schema(tool.parameters)
        parts = name_words(tool.name)
        telling = [word for word in parts if stem(word) not in self.generic] or parts
        weights = {self.meaning(word): 1.0 for word in telling}
        weights |= {self.meaning(word): 0.05 for word in parts if word not in telling}
        literal: dict[str, set[str]] = {}
        for word in parts:
            literal.setdefault(self.meaning(word), set()).add(stem(word))
        described = {self.meaning(word) for word in self.plain(tool.description) if word not in self.stop}
        named: set[str] = set()
        options: list[tuple[str, ...]] = []
        for name, row in as_object(resolve(schema, schema).get("properties")).items():
            named |= {self.meaning(word) for word in name_words(name)}
            resolved = resolve(row, schema)
            options += [
                tuple(name_words(text)) for text in as_list(resolved.get("enum")) if isinstance(text, str)
            ]
        hints = frozenset(described & self.generic)
        described -= self.generic
        return ToolWords(
            tool,
            schema,
            weights,
            literal,
            frozenset(described - weights.keys()),
            frozenset(named),
            tuple(options),
            hints,
            frozenset(parts),
        )

    def score(self, words: Sequence[str], tool: ToolSpec) -> float:
        """How much ``words`` are about ``tool``; TOOL_THRESHOLD and above means they are.

        2·√(share of the name's weight that was said, synonyms at 0.6) + 0.5 a word of the description (at most 3) + 0.4 a
        named option (at most 2) + 0.2 a parameter's name (at most 2) + a little for common words.
        """
        known = self.tool_words(tool)
        telling = [word for word in words if word not in self.stop or self.meaning(word) in known.weights]
        said = {self.meaning(word) for word in telling}
        literal = {stem(word) for word in telling}
        total = sum(known.weights.values())
        hit = sum(
            weight * (1 if known.literal[word] & literal else _SYNONYM)
            for word, weight in known.weights.items()
            if _is_said(word, said)
        )
        described = sum(_is_said(word, said) for word in known.described)
        named = sum(_is_said(word, said) for word in known.named - known.weights.keys() - known.described)
        chosen = sum(find_run(words, option) >= 0 for option in known.options if option)
        share = 2 * (hit / total) ** 0.5 if total else 0.0
        # Too little to choose a tool, enough to choose between two: "read my notes" and "take a note".
        hinted = 0.1 * len(known.hints & said) + 0.02 * len(known.exact & set(words))
        return share + 0.5 * min(described, 3) + 0.4 * min(chosen, 2) + 0.2 * min(named, 2) + hinted

    def covers_name(self, words: Sequence[str], tool: ToolSpec) -> bool:
        """True if every word of the tool's name was said: then it goes before small talk and memory."""
        said = {self.meaning(word) for word in words}
        return all(_is_said(word, said) for word in self.tool_words(tool).weights)

    def best_tool(self, words: Sequence[str], tools: Sequence[ToolSpec]) -> ToolSpec | None:
        """The tool that ``words`` are about; of equals the one declared first; None below the threshold."""
        scored = [(self.score(words, tool), -at, tool) for at, tool in enumerate(tools)]
        best = max(scored, key=lambda row: row[:2], default=None)
        return best[2] if best is not None and best[0] >= TOOL_THRESHOLD else None

    def kind_of(self, name: str) -> KindRow:
        """The kind of a parameter by the words of its name, the last word first (``start_date`` is a date)."""
        for word in reversed(name_words(name)):
            for names, row in self.kinds:
                if stem(word) in names:
                    return row
        return self.data.default_kind


@dataclass(frozen=True, slots=True)
class ToolWords:
    """What a tool is about: its name's words with weights, its description's, its parameters' and options.

    ``literal`` has the stems that the name itself uses for each of its meanings.
    """

    tool: ToolSpec
    schema: Schema
    weights: dict[str, float]
    literal: dict[str, set[str]]
    described: frozenset[str]
    named: frozenset[str]
    options: tuple[tuple[str, ...], ...]
    hints: frozenset[str]
    """Words of the description that many tools share ("read")."""
    exact: frozenset[str]
    """The words of the name as they stand there."""


def _is_said(word: str, said: set[str]) -> bool:
    return word in said or any(is_near(word, other) for other in said)


def _by_end(phrases: Sequence[str], *, is_front: bool) -> Phrases:
    found: Phrases = {}
    for phrase in phrases:
        parts = phrase.split()
        found.setdefault(parts[0 if is_front else -1], []).append(parts)
    return found


def strip_phrases(words: list[str], phrases: Phrases, *, is_front: bool) -> list[str]:
    """``words`` without any of ``phrases`` before (or behind) them, as often as there are some."""
    while words:
        for phrase in phrases.get(words[0 if is_front else -1], ()):
            size = len(phrase)
            if (words[:size] if is_front else words[-size:]) == phrase:
                words = words[size:] if is_front else words[:-size]
                break
        else:
            return words
    return words


def load_rules(path: Path | str | None = None) -> RuleBook:
    """Read a data file (None: the one that ships). Raises ConfigError naming the file and what is wrong."""
    file = Path(path) if path is not None else RULES_FILE
    try:
        data = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Data)
        rules = tuple(_compiled(row) for row in data.rule)
    except OSError as error:
        raise ConfigError(
            f"rules file {file.name}: expected a readable file; got {error.strerror}."
        ) from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, re.error) as error:
        raise ConfigError(
            f"rules file {file.name}: expected the layout of the shipped rules.toml; got: {error}."
        ) from error
    return RuleBook(data, rules)


def _compiled(row: RuleRow) -> Rule:
    numbers = frozenset(re.findall(r"\{(\w+):number\}", " ".join(row.when)))
    return Rule(row, tuple(compile_pattern(text) for text in row.when), numbers)


def number_in(text: str) -> int | None:
    """A whole number that ``text`` is, all of it, in digits or words."""
    words = text.split()
    found = read_number(words)
    return found.value if found and found.end == len(words) and isinstance(found.value, int) else None
