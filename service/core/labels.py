"""Label phrases to values of attributes, and back.

A phrase names values, separated by commas or 'and', each alone or with its attribute, in any case
and order: "red eyes", "eyes: red", "7", "Smiling", "not Smiling". A mapping such as
``{"eyes": "red"}`` says the same without a grammar.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from service.core.manifest import Attribute, normalise
from service.errors import InvalidLabel, InvalidModel

Label: TypeAlias = str | Mapping[str, str | int | bool]
Choice: TypeAlias = dict[int, int]
"""Attributes that were asked for, by position, and the position of the value of each."""


class ParsedLabel(NamedTuple):
    """A label as a model understands it."""

    choice: Choice
    phrase: str
    """The canonical one."""


NO = ("no", "false", "0", "-1")
YES = ("yes", "true", "1")
SEPARATOR = re.compile(r"(,|\band\b)", re.IGNORECASE)
SUGGESTIONS = 5
LIKENESS = 0.6


class Vocabulary:
    """The attributes of one model, and all the ways to say their values.

    ``where`` is told to those who make a mistake: there they find all labels.
    """

    def __init__(self, attributes: Sequence[Attribute], where: str) -> None:
        self.attributes = tuple(attributes)
        self._where = where
        sizes = [len(attribute.values) for attribute in self.attributes]
        self._size = sum(sizes)
        self._firsts = np.cumsum([0, *sizes[:-1]])  # where each attribute's one-hot vector begins
        self._meanings: dict[str, set[tuple[int, int]]] = {}
        self._longest = 1  # the most tokens of a phrase: some values hold a comma or an 'and'
        self._phrases = [_phrases(attribute) for attribute in self.attributes]
        for a, of_values in enumerate(self._phrases):
            for v, phrases in enumerate(of_values):
                for phrase in phrases:
                    self._meanings.setdefault(normalise(phrase), set()).add((a, v))
                    self._longest = max(self._longest, len(SEPARATOR.split(phrase)))

    def check(self) -> None:
        """Raise ``InvalidModel`` where a value has no phrase of its own, which addresses need."""
        for a, attribute in enumerate(self.attributes):
            for v, phrase in enumerate(self.canonical(a)):
                with contextlib.suppress(InvalidLabel):
                    if self.parse(phrase) == {a: v}:
                        continue
                raise InvalidModel(
                    f"no label could ask for the value {attribute.values[v]!r} of "
                    f"{attribute.name!r} alone: {phrase!r} is heard as something else, too"
                )

    def parse(self, label: Label) -> Choice:
        """What ``label`` asks for. Raises ``InvalidLabel``."""
        if not self.attributes:
            raise InvalidLabel("this model is unconditional: it takes no label", allowed=[])
        pairs = self._parse_phrase(label) if isinstance(label, str) else self._parse_mapping(label)
        choice: Choice = {}
        for a, v in pairs:
            if choice.setdefault(a, v) != v:
                attribute = self.attributes[a]
                raise self._mistake(
                    f"label {_short(str(label))!r} asks for two values of {attribute.name!r}: "
                    f"{attribute.values[choice[a]]!r} and {attribute.values[v]!r}"
                )
        return choice

    def ask(self, label: Label) -> ParsedLabel:
        """What ``label`` asks for, and how to say it. Raises ``InvalidLabel``."""
        choice = self.parse(label)
        return ParsedLabel(choice, self.phrase(choice))

    def phrase(self, choice: Choice) -> str:
        """The canonical phrase of ``choice``: ``parse`` gives it back."""
        return ", ".join(self._canonical(a, v) for a, v in sorted(choice.items()))

    def canonical(self, attribute: int) -> list[str]:
        """The canonical phrase of every value of one attribute."""
        return [
            self._canonical(attribute, v) for v in range(len(self.attributes[attribute].values))
        ]

    def names(self, values: Sequence[int]) -> dict[str, str]:
        """Value positions, one for each attribute, as ``{"hair": "black", "eyes": "red"}``."""
        return {
            attribute.name: attribute.values[value]
            for attribute, value in zip(self.attributes, values, strict=True)
        }

    def condition(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Value positions ``[N, A]`` to one-hot vectors side by side ``[N, C]``."""
        rows = np.zeros((len(values), self._size), dtype=np.float32)
        if self.attributes:
            rows[np.arange(len(values))[:, None], values + self._firsts] = 1
        return rows

    def _canonical(self, a: int, v: int) -> str:
        """The most natural phrase that means this value and nothing else."""
        attribute = self.attributes[a]
        value, with_name, name_first, *yes_no = self._phrases[a][v]
        natural = yes_no or ([value] if len(self.attributes) == 1 else [with_name])
        for phrase in (*natural, with_name, name_first):
            if self._meanings[normalise(phrase)] == {(a, v)}:
                return phrase
        return f"{attribute.name}: {value}"

    def _parse_phrase(self, phrase: str) -> list[tuple[int, int]]:
        tokens = SEPARATOR.split(phrase)  # part, separator, part, separator, ..., part
        pairs: list[tuple[int, int]] = []
        at = 0
        while at < len(tokens):
            if not tokens[at].strip():
                at += 2
                continue
            if len(pairs) > len(self.attributes):
                raise self._mistake(
                    "the label names more values than the model has attributes, which are: "
                    f"{', '.join(attribute.name for attribute in self.attributes)}"
                )
            for end in range(min(at + self._longest, len(tokens)), at, -2):
                piece = "".join(tokens[at:end])
                if normalise(piece) in self._meanings:
                    pairs.append(self._one_meaning(piece))
                    at = end + 1
                    break
            else:
                raise self._unknown(tokens[at])
        if not pairs:
            raise self._mistake("the label is empty; leave it out to have every attribute drawn")
        return pairs

    def _one_meaning(self, piece: str) -> tuple[int, int]:
        meanings = self._meanings[normalise(piece)]
        if len(meanings) > 1:
            matches = [self._canonical(a, v) for a, v in sorted(meanings)]
            raise self._mistake(
                f"label {piece.strip()!r} is ambiguous: say {_either(matches)}", matches=matches
            )
        return next(iter(meanings))

    def _unknown(self, piece: str) -> InvalidLabel:
        heard = normalise(_short(piece))
        near = difflib.get_close_matches(heard, self._meanings, SUGGESTIONS * 3, LIKENESS)
        meant = (max(self._meanings[phrase]) for phrase in near)
        matches = list(dict.fromkeys(self._canonical(a, v) for a, v in meant))[:SUGGESTIONS]
        return self._unheard(f"unknown label {_short(piece)!r}", matches)

    def _parse_mapping(self, label: Mapping[str, str | int | bool]) -> list[tuple[int, int]]:
        names = {normalise(attribute.name): a for a, attribute in enumerate(self.attributes)}
        pairs = []
        for name, value in label.items():
            if normalise(name) not in names:
                known = [attribute.name for attribute in self.attributes]
                raise self._mistake(
                    f"unknown attribute {_short(name)!r}; the model has: {', '.join(known)}",
                    matches=difflib.get_close_matches(_short(name), known),
                )
            a = names[normalise(name)]
            pairs.append((a, self._value(a, value)))
        if not pairs:
            raise self._mistake("the label is empty; leave it out to have every attribute drawn")
        return pairs

    def _value(self, a: int, value: str | int | bool) -> int:
        attribute = self.attributes[a]
        said = str(value).casefold() if isinstance(value, bool) else str(value)
        yes_no = _is_yes_no(attribute)
        for v, name in enumerate(attribute.values):
            if yes_no and said.casefold() in (NO, YES)[name.casefold() in YES]:
                return v
            if normalise(name) == normalise(said) and not isinstance(value, bool):
                return v
        near = difflib.get_close_matches(_short(said), attribute.values, SUGGESTIONS, LIKENESS)
        raise self._unheard(
            f"unknown value {_short(said)!r} for {attribute.name!r}",
            [] if isinstance(value, bool) else near,
        )

    def _unheard(self, what: str, matches: list[str]) -> InvalidLabel:
        hint = f"did you mean {_either(matches)}?" if matches else "nothing is close to it."
        return self._mistake(f"{what}: {hint} All labels: {self._where}", matches=matches)

    def _mistake(self, detail: str, **extra: Any) -> InvalidLabel:
        return InvalidLabel(detail, **extra, labels=self._where)


def _phrases(attribute: Attribute) -> list[list[str]]:
    """All ways to say each value: alone, with its attribute on either side, as yes or no."""
    yes_no = _is_yes_no(attribute)
    name = attribute.name
    found = [[value, f"{value} {name}", f"{name} {value}"] for value in attribute.values]
    for value, phrases in zip(attribute.values, found, strict=True):
        if yes_no:
            phrases.append(name if value.casefold() in YES else f"not {name}")
    return found


def _is_yes_no(attribute: Attribute) -> bool:
    """Two values of which one says no and the other yes, such as -1 and 1."""
    said = {value.casefold() for value in attribute.values}
    return len(said) == 2 and bool(said & set(NO)) and bool(said & set(YES))


def _either(phrases: Sequence[str]) -> str:
    return " or ".join(repr(phrase) for phrase in phrases)


def _short(text: str) -> str:
    return text.strip() if len(text) <= 80 else f"{text[:80].strip()}..."
