"""What the demo's caller can say: phrases, facts, their recordings and the grammars that hear them.

The data is ``phrases.toml`` and ``audio/*.wav`` (16 kHz mono PCM16, no silence around the speech), all in the
package. Standard library only; nothing is cached, nothing is written.
"""

from __future__ import annotations

import io
import tomllib
import wave
from dataclasses import dataclass
from importlib.resources import files

from openline.errors import ConfigError
from openline.ports import SPEECH_RATE


@dataclass(frozen=True, slots=True)
class Phrase:
    """One recorded thing to say. ``file`` is its name in ``audio/``."""

    name: str
    text: str
    file: str


@dataclass(frozen=True, slots=True)
class Fact:
    """Something the caller tells and later asks for: word and number ("tiger seven").

    ``statement`` is how the caller says it, ``answer`` how the agent is expected to.
    """

    value: str
    statement: Phrase
    answer: str


@dataclass(frozen=True, slots=True)
class Phrases:
    """All of it. ``by_name`` raises ConfigError for a name that is not there."""

    voice: str
    phrases: tuple[Phrase, ...]
    facts: tuple[Fact, ...]

    def by_name(self, name: str) -> Phrase:
        for phrase in self.phrases:
            if phrase.name == name:
                return phrase
        known = ", ".join(phrase.name for phrase in self.phrases)
        raise ConfigError(f"expected the name of a demo phrase ({known}); got '{name}'.")

    @property
    def caller_grammar(self) -> tuple[str, ...]:
        """Everything the caller can say, for the recognizer that listens to the caller."""
        return (*(one.text for one in self.phrases), *(fact.statement.text for fact in self.facts))

    @property
    def answer_grammar(self) -> tuple[str, ...]:
        """Every answer the agent could give, for the one who checks it and is not told which it was."""
        return tuple(fact.answer for fact in self.facts)

    def fact_of_answer(self, answer: str) -> Fact | None:
        """The fact whose answer was heard; None for anything else."""
        return next((fact for fact in self.facts if fact.answer == answer), None)


def load() -> Phrases:
    """Read ``phrases.toml`` from the package."""
    data = tomllib.loads(files(__package__).joinpath("phrases.toml").read_text(encoding="utf-8"))
    phrases = [Phrase(row["name"], row["text"], f"{row['name']}.wav") for row in data["phrase"]]
    statement, answer = data["facts"]["statement"], data["facts"]["answer"]
    facts = [_fact(value, statement, answer) for value in data["facts"]["values"]]
    return Phrases(f"{data['caller']['engine']} {data['caller']['voice']}", tuple(phrases), tuple(facts))


def _fact(value: str, statement: str, answer: str) -> Fact:
    name = "fact-" + value.replace(" ", "-")
    said = Phrase(name, statement.replace("{fact}", value), f"{name}.wav")
    return Fact(value, said, answer.replace("{fact}", value))


def audio(phrase: Phrase) -> bytes:
    """The recording: PCM16 little-endian mono, 16,000 samples a second, 1–4 s.

    Raises ConfigError when the file is missing or of another format (a broken installation).
    """
    try:
        data = files(__package__).joinpath("audio").joinpath(phrase.file).read_bytes()
        with wave.open(io.BytesIO(data)) as recording:
            shape = (recording.getframerate(), recording.getnchannels(), recording.getsampwidth())
            if shape == (SPEECH_RATE, 1, 2):
                return bytes(recording.readframes(recording.getnframes()))
    except (FileNotFoundError, wave.Error) as error:
        raise ConfigError(
            f"the demo recording {phrase.file} cannot be read.", hint="Install Openline anew."
        ) from error
    raise ConfigError(f"the demo recording {phrase.file} is {shape}, expected 16 kHz mono 16 bit.")
