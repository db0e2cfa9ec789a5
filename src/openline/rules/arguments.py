"""Filling a tool's arguments from a sentence.

The sentence is read in passes, the surest first: named options, ``part hinge``, quoted text, formats,
numbers and durations, yes and no, lists, words behind a preposition, and what is left over. A word that one
value has used is not used again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from openline.core.model import ToolSpec
from openline.rules.leaves import Leaf, Path, leaves_of, settle
from openline.rules.match import RuleBook
from openline.rules.numbers import SECONDS, find_duration, find_numbers, read_number
from openline.rules.schema import Json, Schema, accepts, as_list, as_object, minimal, types_of
from openline.rules.words import Word, find_run, is_near, name_words, stem, straight, words_of

MAX_SPREAD = 5
"""Calls made of one "paris and london and …": more than any sentence holds; a bound on parallel work."""
_PREPOSITIONS = frozenset(
    "in at on for from to of with by about near until via called named saying that using".split()
)
_ARTICLES = frozenset("a an the my your our some this that any".split())
_CONNECTORS = frozenset("is are equals to of be as number called named".split())
_DAYS = frozenset(
    "today tomorrow tonight yesterday monday tuesday wednesday thursday friday saturday sunday noon midnight".split()
)
_TRAILING = frozenset("please now then thanks thank you and today tomorrow tonight again".split())
_LEAD_IN = frozenset(
    "it is its that this was for in to at on about with of um uh make i think mean say well the a an".split()
)
_OPERATORS = frozenset(
    "plus minus times over divided multiplied by to the power of squared cubed percent mod modulo point x root square".split()
)
_REPLIES = frozenset(stem(word) for word in "answer reply response message text result summary".split())
"""Names of places in a form that want what would have been said."""
_QUOTED = re.compile(r'"([^"]+)"|(?<!\w)\'([^\']+)\'(?!\w)')
_FORMATS = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "uri": re.compile(r"https?://\S+"),
    "url": re.compile(r"https?://\S+"),
    "date-time": re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(?::\d\d)?(?:[Zz]|[+-]\d\d:\d\d)?"),
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "time": re.compile(r"\d{1,2}:\d\d(?::\d\d)?"),
    "uuid": re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A call in the making. ``spread``: other values for one place, each of which makes a call of its own."""

    tool: ToolSpec
    values: dict[Path, Json] = field(default_factory=dict)
    spread: tuple[Path, tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    value: Json
    used: frozenset[int]


class Clause:
    """A sentence whose words get used up."""

    def __init__(self, text: str) -> None:
        self.text = straight(text)
        self.words: list[Word] = words_of(self.text)
        self.lows = [word.low for word in self.words]
        self.used: set[int] = set()

    def raw(self, start: int, end: int) -> str:
        """The text of ``words[start:end]`` as it was written."""
        return self.text[self.words[start].start : self.words[end - 1].end] if start < end else ""

    def is_free(self, start: int, end: int) -> bool:
        return not any(index in self.used for index in range(start, end))


_Pass = Callable[["Filler", Leaf, Schema], _Found | None]


class Filler:
    """Fills the places of one tool from one clause."""

    def __init__(self, book: RuleBook, tool: ToolSpec, clause: Clause) -> None:
        self.book = book
        self.known = book.tool_words(tool)
        self.clause = clause
        self.leaves = leaves_of(book, self.known.schema)
        self.values: dict[Path, Json] = {}

    def run(self, leaves: Iterable[Leaf], passes: Iterable[_Pass]) -> None:
        wanted = list(leaves)
        for one_pass in passes:
            for leaf in wanted:
                if leaf.path not in self.values:
                    self._try(leaf, one_pass)

    def _try(self, leaf: Leaf, one_pass: _Pass) -> None:
        for choice in leaf.choices:
            found = one_pass(self, leaf, choice)
            if found is not None and accepts(leaf.schema, found.value, leaf.schema):
                self.values[leaf.path] = found.value
                self.clause.used |= found.used
                return

    # -- passes

    def option(self, leaf: Leaf, choice: Schema) -> _Found | None:
        """One of an enum's values, said as words."""
        for value in self._options(choice):
            found = self._find_option(value)
            if found is not None:
                return found
        return None

    def _options(self, choice: Schema) -> list[Json]:
        # Longer ones first: "light blue" before "blue".
        return sorted(as_list(choice.get("enum")), key=lambda value: -len(str(value)))

    def _find_option(self, value: Json) -> _Found | None:
        lows = self.clause.lows
        if isinstance(value, int | float) and not isinstance(value, bool):
            for number in find_numbers(lows):
                if number.value == value and self.clause.is_free(number.start, number.end):
                    return _Found(value, frozenset(range(number.start, number.end)))
            return None
        if not isinstance(value, str):
            return None
        parts = name_words(value)
        at = find_run(lows, parts)
        is_telling = any(part not in self.book.stop for part in parts)
        if at < 0 or not is_telling or not self.clause.is_free(at, at + len(parts)):
            return None
        return _Found(value, frozenset(range(at, at + len(parts))))

    def named(self, leaf: Leaf, choice: Schema) -> _Found | None:
        """``count five``, ``part is the left hinge``."""
        names = types_of(choice)
        parts = name_words(leaf.path[-1])
        lows = self.clause.lows
        at = find_run(lows, parts)
        if at < 0 or "enum" in choice or not ({"string", "number", "integer"} & set(names)):
            return None
        start = at + len(parts)
        if start < len(lows) and lows[start] in ("and", "or"):
            return None
        while start < len(lows) and (lows[start] in _CONNECTORS or lows[start] in _ARTICLES):
            start += 1
        if "string" not in names:
            number = read_number(lows, start)
            if number is None or not self.clause.is_free(start, number.end):
                return None
            return _Found(_as_type(number.value, choice), frozenset(range(at, number.end)))
        end = len(lows) if leaf.kind.rest else self._span_end(start, leaf)
        if start >= end or lows[start] in self.book.stop or not self.clause.is_free(start, end):
            return None
        return _Found(self.clause.raw(start, end), frozenset(range(at, end)))

    def quoted(self, leaf: Leaf, choice: Schema) -> _Found | None:
        if "string" not in types_of(choice) or "enum" in choice or choice.get("format") in _FORMATS:
            return None
        for match in _QUOTED.finditer(self.clause.text):
            inside = self._inside(match.start(), match.end())
            if inside and not inside & self.clause.used:
                return _Found(match.group(1) or match.group(2), inside)
        return None

    def formatted(self, leaf: Leaf, choice: Schema) -> _Found | None:
        """A format that can be recognized by its looks."""
        pattern = _FORMATS.get(str(choice.get("format", "")))
        if pattern is None and leaf.kind.after and _DAYS & set(self.clause.lows):
            return self._day(leaf)
        match = pattern.search(self.clause.text) if pattern is not None else None
        if match is None or "string" not in types_of(choice):
            return None
        inside = self._inside(match.start(), match.end())
        return None if inside & self.clause.used else _Found(match.group(), inside)

    def _day(self, leaf: Leaf) -> _Found | None:
        if not leaf.stems & {"date", "day", "time", "when", "deadlin", "due"}:
            return None
        at = next((i for i, low in enumerate(self.clause.lows) if low in _DAYS), -1)
        return _Found(self.clause.words[at].raw, frozenset({at})) if at not in self.clause.used else None

    def number(self, leaf: Leaf, choice: Schema) -> _Found | None:
        """A number: a duration in the place's own unit, else the nearest to its name, else the next."""
        if not {"number", "integer"} & set(types_of(choice)) or "enum" in choice:
            return None
        lows = self.clause.lows
        unit = _unit_of(leaf)
        lasting = find_duration(lows) if unit else None
        if lasting is not None and self.clause.is_free(lasting.start, lasting.end):
            used = frozenset(range(lasting.start, lasting.end))
            return _Found(_as_type(lasting.value / SECONDS[unit], choice), used)
        free = [n for n in find_numbers(lows) if self.clause.is_free(n.start, n.end)]
        near = [n for n in free if self._is_beside(n.start, n.end, leaf)]
        for number in near + free:
            value = _as_type(number.value, choice)
            if accepts(leaf.schema, value, leaf.schema):
                return _Found(value, frozenset(range(number.start, number.end)))
        return None

    def yes_no(self, leaf: Leaf, choice: Schema) -> _Found | None:
        """A flag that is named: "urgent" is true, "not urgent" false."""
        if types_of(choice) != ["boolean"]:
            return None
        lows = [low.replace("'", "") for low in self.clause.lows]
        telling = leaf.stems - {"is", "be", "should", "with", "has", "use", "do"}
        for at, low in enumerate(lows):
            if stem(low) in telling and at not in self.clause.used:
                before = set(lows[max(0, at - 3) : at])
                is_denied = bool(before & set(self.book.data.words.negations.split())) or "off" in lows[at:]
                return _Found(not is_denied, frozenset({at}))
        return None

    def listed(self, leaf: Leaf, choice: Schema) -> _Found | None:
        """Several values for a list: all options that were said, all numbers, or words joined by "and"."""
        if types_of(choice) != ["array"]:
            return None
        item = as_object(choice.get("items"))
        names = types_of(item)
        hits: list[_Found] = []
        if "enum" in item:
            found = [self._find_option(value) for value in self._options(item)]
            hits = sorted((hit for hit in found if hit is not None), key=lambda hit: min(hit.used))
        elif {"number", "integer"} & set(names):
            free = [n for n in find_numbers(self.clause.lows) if self.clause.is_free(n.start, n.end)]
            hits = [_Found(_as_type(n.value, item), frozenset(range(n.start, n.end))) for n in free]
        elif "string" in names:
            span = self.left_over(leaf, item) or self.behind(leaf, item)
            if span is not None:
                hits = [_Found(part, span.used) for part in split_list(str(span.value))]
        most = choice.get("maxItems")
        hits = hits[:most] if isinstance(most, int) else hits
        used = frozenset(index for hit in hits for index in hit.used)
        return _Found([hit.value for hit in hits], used) if hits else None

    def behind_its_own(self, leaf: Leaf, choice: Schema) -> _Found | None:
        """``behind`` for places of a known kind, which go first: "in berlin" is for the city."""
        return None if leaf.kind is self.book.data.default_kind else self.behind(leaf, choice)

    def behind(self, leaf: Leaf, choice: Schema) -> _Found | None:
        """Words behind a preposition that suits the place."""
        if not self._takes_words(choice) or (
            not leaf.is_required and leaf.kind is self.book.data.default_kind
        ):
            return None
        if leaf.kind.is_expression:
            return self._expression()
        if leaf.kind.rest:
            return self._rest(leaf) if leaf.is_required else None
        lows = self.clause.lows
        for preposition in leaf.kind.after:
            lead = preposition.split()
            at = find_run(lows, lead) if len(lead) > 1 else self._free_index(preposition)
            if at < 0:
                continue
            start = at + len(lead)
            # "in stock", "to order hinges": words that name the tool are not what it is asked about.
            while start < len(lows) and (
                lows[start] in _ARTICLES or self.book.meaning(lows[start]) in self.known.weights
            ):
                start += 1
            end = self._span_end(start, leaf)
            if start < end and any(low not in self.book.stop for low in lows[start:end]):
                return _Found(self.clause.raw(start, end), frozenset(range(at, end)))
        return None

    def left_over(self, leaf: Leaf, choice: Schema) -> _Found | None:
        """The longest run of words that nothing else has used and that are not about the tool itself."""
        if not self._takes_words(choice) or not leaf.is_required or leaf.kind.rest or leaf.kind.is_expression:
            return None
        # A synonym may be part of the value ("left hinge"), the tool's own words are not ("stock").
        own = {stem for stems in self.known.literal.values() for stem in stems} | leaf.stems
        return self._longest_run(own | self.known.described) or self._longest_run(own)

    # -- helpers

    def _takes_words(self, choice: Schema) -> bool:
        names = types_of(choice)
        return ("string" in names or not names) and "enum" not in choice and "const" not in choice

    def _inside(self, start: int, end: int) -> frozenset[int]:
        return frozenset(
            i for i, word in enumerate(self.clause.words) if start <= word.start and word.end <= end
        )

    def _free_index(self, low: str) -> int:
        indexes = (i for i, word in enumerate(self.clause.lows) if word == low and i not in self.clause.used)
        return next(indexes, -1)

    def _is_beside(self, start: int, end: int, leaf: Leaf) -> bool:
        near = self.clause.lows[max(0, start - 2) : start] + self.clause.lows[end : end + 1]
        return any(is_near(stem(word), name) for word in near for name in leaf.stems)

    def _span_end(self, start: int, leaf: Leaf) -> int:
        """Where a value that begins at ``start`` ends: at a preposition, a used word, another place's name."""
        lows = self.clause.lows
        others = {name for other in self.leaves if other.path != leaf.path for name in other.stems}
        end = start
        while end < len(lows) and end not in self.clause.used and lows[end] not in _PREPOSITIONS:
            if end > start and stem(lows[end]) in others:
                break
            end += 1
        while end > start and (lows[end - 1] in _TRAILING or lows[end - 1] in _ARTICLES):
            end -= 1
        return end

    def _is_own(self, index: int, own: Iterable[str]) -> bool:
        low = self.clause.lows[index]
        is_own = self.book.meaning(low) in own or stem(low) in own
        return is_own or low in self.book.stop or stem(low) in self.book.generic

    def _rest(self, leaf: Leaf) -> _Found | None:
        """Everything behind the words that name the tool: "take a note | that | the door is open"."""
        lows = self.clause.lows
        own = set(self.known.weights) | leaf.stems
        start = 0
        while start < len(lows) and (self._is_own(start, own) or start in self.clause.used):
            start += 1
        last_own = max((i for i in range(start) if self.book.meaning(lows[i]) in own), default=-1)
        last_own = max([last_own, *(i for i in self.clause.used if i < start)])
        leads = [i for i in range(last_own + 1, min(start + 1, len(lows))) if lows[i] in leaf.kind.after]
        if leads:
            start = leads[0] + 1
        elif start - 1 > last_own and start and lows[start - 1] in _ARTICLES:
            start -= 1
        end = len(lows)
        while end > start and lows[end - 1] in ("please", "thanks"):
            end -= 1
        return _Found(self.clause.raw(start, end), frozenset(range(start, end))) if start < end else None

    def _expression(self) -> _Found | None:
        lows = self.clause.lows
        numbers = find_numbers(lows)
        if not numbers:
            return None
        start, end = numbers[0].start, numbers[-1].end
        while end < len(lows) and lows[end] in _OPERATORS:
            end += 1
        while start > 0 and lows[start - 1] in _OPERATORS - {"by", "to"}:
            start -= 1
        while lows[start] in ("the", "of", "by", "to"):
            start += 1
        text = self.clause.text
        first, last = self.clause.words[start].start, self.clause.words[end - 1].end
        while first > 0 and text[first - 1] in "(-":
            first -= 1
        while last < len(text) and text[last] in ")%":
            last += 1
        return _Found(text[first:last], frozenset(range(start, end)))

    def _longest_run(self, own: Iterable[str]) -> _Found | None:
        lows, taken = self.clause.lows, set(own)
        best = (0, 0)
        start = 0
        for index in range(len(lows) + 1):
            is_inside = index < len(lows) and index not in self.clause.used
            joins = is_inside and index > start and lows[index] == "and"
            is_own = is_inside and (stem(lows[index]) in taken or self._is_own(index, ()))
            if joins or (is_inside and not is_own and lows[index] not in _TRAILING):
                continue
            end = self._trimmed(start, index)
            best = (start, end) if end - start > best[1] - best[0] else best
            start = index + 1
        start, end = best
        return _Found(self.clause.raw(start, end), frozenset(range(start, end))) if start < end else None

    def _trimmed(self, start: int, end: int) -> int:
        """Without a last "and" and words that mean the tool: "hinges | available"."""
        lows = self.clause.lows
        while end > start and (
            lows[end - 1] == "and" or self.book.meaning(lows[end - 1]) in self.known.weights
        ):
            end -= 1
        return end


_SURE: tuple[_Pass, ...] = (
    Filler.option,
    Filler.quoted,
    Filler.formatted,
    Filler.named,
    Filler.number,
    Filler.yes_no,
)
_ALL: tuple[_Pass, ...] = (*_SURE, Filler.behind_its_own, Filler.listed, Filler.behind, Filler.left_over)


def draft_call(book: RuleBook, tool: ToolSpec, text: str) -> Draft:
    """What ``text`` says about a call of ``tool``."""
    filler = Filler(book, tool, Clause(text))
    leaves = sorted(filler.leaves, key=lambda leaf: not leaf.is_required)
    filler.run(leaves, _ALL)
    return _spread(filler, Draft(tool, filler.values))


def fill_form(book: RuleBook, form: ToolSpec, text: str, spoken: str) -> str:
    """JSON that is valid for ``form``'s schema (if any value is): ``spoken`` where an answer is wanted, for the rest
    what ``text`` says."""
    filler = Filler(book, form, Clause(text))
    for leaf in filler.leaves:
        if leaf.stems & _REPLIES and accepts(leaf.schema, spoken, leaf.schema):
            filler.values[leaf.path] = spoken
    filler.run(sorted(filler.leaves, key=lambda leaf: not leaf.is_required), _ALL)
    return finish(book, Draft(form, filler.values))[0]


def _spread(filler: Filler, draft: Draft) -> Draft:
    for leaf in filler.leaves:
        value = draft.values.get(leaf.path)
        is_plain = isinstance(value, str) and not leaf.kind.rest and not leaf.kind.is_expression
        if is_plain and isinstance(value, str) and f'"{value}"' not in filler.clause.text:
            parts = split_list(value)[:MAX_SPREAD]
            if len(parts) > 1 and all(accepts(leaf.schema, part, leaf.schema) for part in parts):
                values = {**draft.values, leaf.path: parts[0]}
                return replace(draft, values=values, spread=(leaf.path, tuple(parts[1:])))
    return draft


def split_list(text: str) -> list[str]:
    """``nuts, bolts and a hinge`` in its parts, articles dropped."""
    parts = re.split(r"\s*(?:,\s*and\s|,|;|\band\b|\bor\b)\s*", text)
    return [re.sub(r"^(?:a|an|the)\s+", "", part.strip()) for part in parts if part.strip()]


def with_default(leaf: Leaf) -> tuple[Json] | None:
    """What a required place gets when nothing was said about it, in a tuple; None: it must be asked for."""
    if leaf.has_default:
        return (leaf.schema["default"],)
    if "const" in leaf.schema:
        return (leaf.schema["const"],)
    if leaf.can_be_null:
        return (None,)
    return None if leaf.can_be_asked else (minimal(leaf.schema, leaf.schema),)


def missing_of(book: RuleBook, draft: Draft) -> list[Leaf]:
    """Required places that have no value and no default, in declared order."""
    leaves = leaves_of(book, book.tool_words(draft.tool).schema)
    return [
        leaf
        for leaf in leaves
        if leaf.is_required and leaf.path not in draft.values and with_default(leaf) is None
    ]


def finish(book: RuleBook, draft: Draft) -> list[str]:
    """The calls of a draft as JSON arguments, each valid for the tool's schema (if any value is)."""
    schema = book.tool_words(draft.tool).schema
    leaves = leaves_of(book, schema)
    values = dict(draft.values)
    for leaf in leaves:
        if leaf.is_required and leaf.path not in values:
            given = with_default(leaf)
            values[leaf.path] = given[0] if given is not None else minimal(leaf.schema, leaf.schema)
    every = [values]
    if draft.spread is not None:
        path, others = draft.spread
        every += [{**values, path: other} for other in others]
    made = [json.dumps(settle(schema, leaves, one), ensure_ascii=False) for one in every]
    return list(dict.fromkeys(made))


def answer(book: RuleBook, draft: Draft, asked: Leaf, text: str) -> Draft | None:
    """``draft`` with what the caller answered to the question for ``asked``; None if it is no answer."""
    filler = Filler(book, draft.tool, Clause(text))
    others = [leaf for leaf in missing_of(book, draft) if leaf.path != asked.path]
    filler.run([asked], (Filler.option, Filler.quoted, Filler.formatted, Filler.number))
    filler.run(others, (Filler.option, Filler.quoted, Filler.formatted, Filler.named, Filler.number))
    filler.run([asked], (_answered,))
    if asked.path not in filler.values:
        return None
    return _spread(filler, replace(draft, values={**draft.values, **filler.values}))


def _answered(filler: Filler, leaf: Leaf, choice: Schema) -> _Found | None:
    """The whole of a short answer, without "it is the …" before and "please" behind it."""
    lows, data = filler.clause.lows, filler.book.data.words
    if types_of(choice) == ["boolean"]:
        said = set(lows)
        if said & set(data.no.split()):
            return _Found(False, frozenset())
        return _Found(True, frozenset()) if said & set(data.yes.split()) else None
    start, end = 0, len(lows)
    if not leaf.kind.rest:
        while start < end and (lows[start] in _LEAD_IN or start in filler.clause.used):
            start += 1
        while end > start and (lows[end - 1] in ("please", "thanks", "and") or end - 1 in filler.clause.used):
            end -= 1
    text = filler.clause.raw(start, end)
    if not text:
        return None
    if types_of(choice) == ["array"]:
        names = types_of(as_object(choice.get("items")))
        parts: list[Json] = list(split_list(text))
        return _Found(parts, frozenset()) if "string" in names or not names else filler.listed(leaf, choice)
    return _Found(text, frozenset()) if filler._takes_words(choice) else None


def _as_type(value: int | float, choice: Schema) -> int | float:
    if "integer" in types_of(choice) and "number" not in types_of(choice) and float(value).is_integer():
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unit_of(leaf: Leaf) -> str:
    """The unit of time a number is wanted in, by its name or description; "" if it is no time."""
    described = leaf.schema.get("description")
    for text in (leaf.path[-1], described if isinstance(described, str) else ""):
        for word in name_words(text):
            if word.removesuffix("s") in SECONDS:
                return word.removesuffix("s")
            if word == "ms":
                return "millisecond"
    return ""
