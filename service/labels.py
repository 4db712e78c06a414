"""Label phrases to values of attributes, and back.

A phrase names values, separated by commas or 'and', each alone or with its attribute, in any case
and order: "red eyes", "eyes: red", "7", "Smiling", "not Smiling". A mapping such as
``{"eyes": "red"}`` says the same without a grammar.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from service.errors import InvalidLabel
from service.manifest import Attribute

Label: TypeAlias = str | Mapping[str, str | int | bool]
Choice: TypeAlias = dict[int, int]
"""Attributes that were asked for, by position, and the position of the value of each."""

NO_AND_YES = ({"no", "yes"}, {"false", "true"}, {"0", "1"}, {"-1", "1"})
SEPARATOR = re.compile(r"(\s*(?:(?:,|\band\b)\s*)+)", re.IGNORECASE)
SUGGESTIONS = 5


class Vocabulary:
    """The attributes of one model, and all the ways to say their values."""

    def __init__(self, attributes: Sequence[Attribute], model: str) -> None:
        self.attributes = tuple(attributes)
        self._where = f"/models/{model}/labels"
        self._meanings: dict[str, set[tuple[int, int]]] = {}
        for a, attribute in enumerate(self.attributes):
            for v in range(len(attribute.values)):
                for phrase in self._phrases(a, v):
                    self._meanings.setdefault(_normal(phrase), set()).add((a, v))

    def parse(self, label: Label) -> Choice:
        """What ``label`` asks for. Raises ``InvalidLabel``."""
        if not self.attributes:
            raise InvalidLabel("this model is unconditional: it takes no label", allowed=[])
        pairs = self._parse_phrase(label) if isinstance(label, str) else self._parse_mapping(label)
        choice: Choice = {}
        for a, v in pairs:
            if choice.setdefault(a, v) != v:
                attribute = self.attributes[a]
                raise InvalidLabel(
                    f"label {label!r} asks for two values of {attribute.name!r}: "
                    f"{attribute.values[choice[a]]!r} and {attribute.values[v]!r}",
                    labels=self._where,
                )
        return choice

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
        sizes = [len(attribute.values) for attribute in self.attributes]
        rows = np.zeros((len(values), sum(sizes)), dtype=np.float32)
        firsts = np.cumsum([0, *sizes[:-1]])
        np.put_along_axis(rows, values + firsts, 1, axis=1)
        return rows

    def _phrases(self, a: int, v: int) -> list[str]:
        attribute = self.attributes[a]
        name, value = attribute.name, attribute.values[v]
        phrases = [value, f"{value} {name}", f"{name} {value}"]
        if _is_yes_no(attribute):
            phrases.append(name if value.casefold() in ("yes", "true", "1") else f"not {name}")
        return phrases

    def _canonical(self, a: int, v: int) -> str:
        """The most natural phrase that means this value and nothing else."""
        attribute = self.attributes[a]
        value, with_name, name_first, *yes_no = self._phrases(a, v)
        natural = yes_no or ([value] if len(self.attributes) == 1 else [with_name])
        for phrase in (*natural, with_name, name_first):
            if self._meanings[_normal(phrase)] == {(a, v)}:
                return phrase
        return f"{attribute.name}: {value}"

    def _parse_phrase(self, phrase: str) -> list[tuple[int, int]]:
        tokens = SEPARATOR.split(phrase)  # part, separator, part, separator, ..., part
        pairs, at = [], 0
        while at < len(tokens):
            if not tokens[at].strip():
                at += 2
                continue
            # A value may itself hold a comma or an 'and', so the longest run of parts wins.
            for end in range(len(tokens), at, -2):
                piece = "".join(tokens[at:end])
                if _normal(piece) in self._meanings:
                    pairs.append(self._one_meaning(piece))
                    at = end + 1
                    break
            else:
                raise self._unknown(tokens[at])
        if not pairs:
            raise InvalidLabel(
                "the label is empty; leave it out to have every attribute drawn",
                labels=self._where,
            )
        return pairs

    def _one_meaning(self, piece: str) -> tuple[int, int]:
        meanings = self._meanings[_normal(piece)]
        if len(meanings) > 1:
            matches = [self._canonical(a, v) for a, v in sorted(meanings)]
            raise InvalidLabel(
                f"label {piece.strip()!r} is ambiguous: say {_either(matches)}",
                matches=matches,
                labels=self._where,
            )
        return next(iter(meanings))

    def _unknown(self, piece: str) -> InvalidLabel:
        phrases = {
            _normal(phrase): self._canonical(a, v)
            for a, attribute in enumerate(self.attributes)
            for v in range(len(attribute.values))
            for phrase in self._phrases(a, v)
        }
        near = difflib.get_close_matches(_normal(piece), phrases, n=SUGGESTIONS * 3, cutoff=0.5)
        matches = list(dict.fromkeys(phrases[phrase] for phrase in near))[:SUGGESTIONS]
        hint = f"did you mean {_either(matches)}?" if matches else "nothing is close to it;"
        return InvalidLabel(
            f"unknown label {_short(piece)!r}: {hint} All labels: GET {self._where}",
            matches=matches,
            labels=self._where,
        )

    def _parse_mapping(self, label: Mapping[str, str | int | bool]) -> list[tuple[int, int]]:
        names = {_normal(attribute.name): a for a, attribute in enumerate(self.attributes)}
        pairs = []
        for name, value in label.items():
            if _normal(name) not in names:
                raise InvalidLabel(
                    f"unknown attribute {_short(name)!r}; the model has: "
                    f"{', '.join(attribute.name for attribute in self.attributes)}",
                    matches=difflib.get_close_matches(name, [x.name for x in self.attributes]),
                    labels=self._where,
                )
            a = names[_normal(name)]
            pairs.append((a, self._value(a, value)))
        if not pairs:
            raise InvalidLabel(
                "the label is empty; leave it out to have every attribute drawn",
                labels=self._where,
            )
        return pairs

    def _value(self, a: int, value: str | int | bool) -> int:
        attribute = self.attributes[a]
        known = {_normal(name): v for v, name in enumerate(attribute.values)}
        if isinstance(value, bool):
            words = ["yes", "true", "1"] if value else ["no", "false", "0", "-1"]
        else:
            words = [str(value)]
        for word in words:
            if _normal(word) in known:
                return known[_normal(word)]
        matches = difflib.get_close_matches(str(value), attribute.values, cutoff=0.5)
        hint = f"did you mean {_either(matches)}? " if matches else ""
        raise InvalidLabel(
            f"unknown value {_short(str(value))!r} for {attribute.name!r}: {hint}"
            f"All labels: GET {self._where}",
            matches=matches,
            labels=self._where,
        )


def _is_yes_no(attribute: Attribute) -> bool:
    return {value.casefold() for value in attribute.values} in NO_AND_YES


def _normal(phrase: str) -> str:
    """Case, punctuation between words and extra blanks make no difference."""
    words = re.sub(r"[\s:=_,]+|(?<=\w)-(?=\w)", " ", phrase.casefold())
    return words.strip()


def _either(phrases: Sequence[str]) -> str:
    return " or ".join(repr(phrase) for phrase in phrases)


def _short(text: str) -> str:
    return text.strip() if len(text) <= 80 else f"{text[:80].strip()}..."
