"""Label grammar: phrases to values of attributes, and back.

A phrase names values, separated by commas or 'and', each alone or with its attribute, in any case
and order: "red eyes", "eyes: red", "7", "Smiling", "not Smiling". A mapping such as
``{"eyes": "red"}`` means the same without a grammar.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from service.core.manifest import Attribute, normalise
from service.core.text import MAX_LISTED, listed, shortened, similar
from service.errors import InvalidLabel, InvalidModel

Label: TypeAlias = str | Mapping[str, str | int | bool]
Choice: TypeAlias = dict[int, int]
"""Requested values: position of the attribute to position of the value."""


class ParsedLabel(NamedTuple):
    """A label as values of one model, with its canonical phrase."""

    choice: Choice
    phrase: str


NO = ("no", "false", "0", "-1")
YES = ("yes", "true", "1")
SEPARATOR = re.compile(r"(,|\band\b)", re.IGNORECASE)
MAX_SUGGESTIONS = 5
MAX_TOKENS = 17
"""Parts and separators of one value with 8 commas or 'and': each run of so many is looked up."""


class Vocabulary:
    """Attributes of one model, and every phrase for their values."""

    def __init__(self, attributes: Sequence[Attribute], where: str) -> None:
        """``where``: path that lists all labels, quoted in errors."""
        self.attributes = tuple(attributes)
        self._where = where
        sizes = [len(attribute.values) for attribute in self.attributes]
        self._size = sum(sizes)
        self._offsets = np.cumsum([0, *sizes[:-1]])  # of each attribute's one-hot vector
        self._names = {normalise(attribute.name): a for a, attribute in enumerate(self.attributes)}
        self._values = [
            {normalise(value): v for v, value in enumerate(attribute.values)}
            for attribute in self.attributes
        ]
        self._meanings: dict[str, set[tuple[int, int]]] = {}
        self._max_tokens = 1  # more than 1 if a value contains a comma or 'and'
        found = [_phrases(attribute) for attribute in self.attributes]
        for a, of_values in enumerate(found):
            for v, phrases in enumerate(of_values):
                for phrase in phrases:
                    self._meanings.setdefault(normalise(phrase), set()).add((a, v))
                    self._max_tokens = max(self._max_tokens, len(SEPARATOR.split(phrase)))
        self._max_tokens = min(self._max_tokens, MAX_TOKENS)
        self._canonical = [
            [self._most_natural(a, v, phrases) for v, phrases in enumerate(of_values)]
            for a, of_values in enumerate(found)
        ]

    def check(self) -> None:
        """Raise ``InvalidModel`` if a value has no unambiguous phrase, which addresses need."""
        for a, attribute in enumerate(self.attributes):
            for v, phrase in enumerate(self.canonical(a)):
                with contextlib.suppress(InvalidLabel):
                    if self.parse(phrase) == {a: v}:
                        continue
                raise InvalidModel(
                    f"no label selects the value {attribute.values[v]!r} of "
                    f"{attribute.name!r} alone: {phrase!r} has another meaning, too"
                )

    def parse(self, label: Label) -> Choice:
        """Values that ``label`` names. Raises ``InvalidLabel``."""
        if not self.attributes:
            raise InvalidLabel("this model is unconditional: it takes no label", allowed=[])
        pairs = self._parse_phrase(label) if isinstance(label, str) else self._parse_mapping(label)
        choice: Choice = {}
        for a, v in pairs:
            if choice.setdefault(a, v) != v:
                attribute = self.attributes[a]
                raise self._invalid(
                    f"label {shortened(str(label))!r} names two values of {attribute.name!r}: "
                    f"{attribute.values[choice[a]]!r} and {attribute.values[v]!r}"
                )
        return choice

    def resolve(self, label: Label) -> ParsedLabel:
        """Values that ``label`` names, and their canonical phrase. Raises ``InvalidLabel``."""
        choice = self.parse(label)
        return ParsedLabel(choice, self.phrase(choice))

    def phrase(self, choice: Choice) -> str:
        """Canonical phrase of ``choice``; ``parse`` inverts it."""
        return ", ".join(self._canonical[a][v] for a, v in sorted(choice.items()))

    def canonical(self, attribute: int) -> list[str]:
        """Canonical phrase of every value of one attribute."""
        return self._canonical[attribute]

    def names(self, values: Sequence[int]) -> dict[str, str]:
        """Names of value positions ``[A]``: ``{"hair": "black", "eyes": "red"}``."""
        return {
            attribute.name: attribute.values[value]
            for attribute, value in zip(self.attributes, values, strict=True)
        }

    def condition(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """One-hot vectors, side by side ``[N, C]``, of value positions ``[N, A]``."""
        rows = np.zeros((len(values), self._size), dtype=np.float32)
        if self.attributes:
            rows[np.arange(len(values))[:, None], values + self._offsets] = 1
        return rows

    def _most_natural(self, a: int, v: int, phrases: Sequence[str]) -> str:
        """The most natural of ``phrases`` that means this value and no other."""
        value, with_name, name_first, *yes_no = phrases
        natural = yes_no or ([value] if len(self.attributes) == 1 else [with_name])
        for phrase in (*natural, with_name, name_first):
            if self._meanings[normalise(phrase)] == {(a, v)}:
                return phrase
        return f"{self.attributes[a].name}: {value}"

    def _parse_phrase(self, phrase: str) -> list[tuple[int, int]]:
        tokens = SEPARATOR.split(phrase)  # part, separator, part, separator, ..., part
        pairs: list[tuple[int, int]] = []
        at = 0
        while at < len(tokens):
            if not tokens[at].strip():
                at += 2
                continue
            if len(pairs) > len(self.attributes):
                raise self._invalid(
                    "the label names more values than the model has attributes, which are: "
                    f"{listed([attribute.name for attribute in self.attributes])}"
                )
            for end in range(min(at + self._max_tokens, len(tokens)), at, -2):
                piece = "".join(tokens[at:end])
                if normalise(piece) in self._meanings:
                    pairs.append(self._one_meaning(piece))
                    at = end + 1
                    break
            else:
                raise self._unknown(tokens[at])
        if not pairs:
            raise self._invalid("the label is empty; leave it out to have every attribute drawn")
        return pairs

    def _one_meaning(self, piece: str) -> tuple[int, int]:
        meanings = self._meanings[normalise(piece)]
        if len(meanings) > 1:
            matches = [self._canonical[a][v] for a, v in sorted(meanings)[:MAX_LISTED]]
            raise self._invalid(
                f"label {piece.strip()!r} is ambiguous: say {_either(matches)}", matches=matches
            )
        return next(iter(meanings))

    def _unknown(self, piece: str) -> InvalidLabel:
        near = similar(normalise(shortened(piece)), self._meanings, MAX_SUGGESTIONS * 3)
        values = (max(self._meanings[phrase]) for phrase in near)
        matches = list(dict.fromkeys(self._canonical[a][v] for a, v in values))[:MAX_SUGGESTIONS]
        return self._not_found(f"unknown label {shortened(piece)!r}", matches)

    def _parse_mapping(self, label: Mapping[str, str | int | bool]) -> list[tuple[int, int]]:
        pairs = []
        for name, value in label.items():
            a = self._names.get(normalise(name))
            if a is None:
                known = [attribute.name for attribute in self.attributes]
                raise self._invalid(
                    f"unknown attribute {shortened(name)!r}; the model has: {listed(known)}",
                    matches=similar(shortened(name), known, MAX_SUGGESTIONS),
                )
            pairs.append((a, self._value(a, value)))
        if not pairs:
            raise self._invalid("the label is empty; leave it out to have every attribute drawn")
        return pairs

    def _value(self, a: int, value: str | int | bool) -> int:
        attribute = self.attributes[a]
        text = str(value).casefold() if isinstance(value, bool) else str(value)
        if _is_yes_no(attribute):
            for v, name in enumerate(attribute.values):
                if text.casefold() in (NO, YES)[name.casefold() in YES]:
                    return v
        found = self._values[a].get(normalise(text))
        if found is not None and not isinstance(value, bool):
            return found
        near = similar(shortened(text), attribute.values, MAX_SUGGESTIONS)
        raise self._not_found(
            f"unknown value {shortened(text)!r} for {attribute.name!r}",
            [] if isinstance(value, bool) else near,
        )

    def _not_found(self, what: str, matches: list[str]) -> InvalidLabel:
        hint = f"did you mean {_either(matches)}?" if matches else "no label is similar."
        return self._invalid(f"{what}: {hint} All labels: {self._where}", matches=matches)

    def _invalid(self, detail: str, **extra: Any) -> InvalidLabel:
        return InvalidLabel(detail, **extra, labels=self._where)


def _phrases(attribute: Attribute) -> list[list[str]]:
    """Phrases for each value: alone, with its attribute on either side, as yes or no."""
    yes_no = _is_yes_no(attribute)
    name = attribute.name
    found = [[value, f"{value} {name}", f"{name} {value}"] for value in attribute.values]
    for value, phrases in zip(attribute.values, found, strict=True):
        if yes_no:
            phrases.append(name if value.casefold() in YES else f"not {name}")
    return found


def _is_yes_no(attribute: Attribute) -> bool:
    """True for two values that mean no and yes, such as -1 and 1."""
    if len(attribute.values) != 2:
        return False
    values = {value.casefold() for value in attribute.values}
    return bool(values & set(NO)) and bool(values & set(YES))


def _either(phrases: Sequence[str]) -> str:
    return " or ".join(repr(phrase) for phrase in phrases)
