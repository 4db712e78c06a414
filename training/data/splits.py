"""Splits among paths: which files are for training, which are left out, which are parts of a whole.

Paths are read from the top. Folders around everything are passed through. Where the folders of a
level are splits, in any of their usual names, the one for training is taken. Where all are numbered
parts, they are joined. Everything else that looks like splits is an error that lists them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from training.data.reading import NESTED_COPY
from training.errors import DataError

TRAIN = "train"
KINDS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "t10k"),
    "val": ("val", "valid", "validation", "dev", "holdout"),
    "unlabelled": ("unlabeled", "unlabelled", "unsup", "unsupervised", "extra", "predict", "pred"),
}
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}
PARTS = ("part", "batch", "databatch", "shard", "chunk", "fold", "section", "piece")
COLUMNS = ("split", "partition", "subset", "data_set", "dataset_split")
"""Names of table columns and of ``split=train/`` that say which split a row is of."""
NO_SPLIT = "none"
"""Value of ``--split`` that reads everything."""
PACKED = r"zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz"
ENDINGS = re.compile(rf"\.({PACKED}|parquet|csv|tsv|jsonl|json|txt|npy|gz)$", re.I)


@dataclass
class Selection:
    kept: list[tuple[str, str]] = field(default_factory=list)
    """Path and its rest below the folders that were passed through."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Reason to rests of paths."""
    split: str = ""


def kind_of(text: str) -> tuple[str, str] | None:
    """Kind of split and the other words of ``text``: ``seg_train`` is ``("train", "seg")``."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", ENDINGS.sub("", text))  # trainA, PublicTest
    key, equals, value = text.partition("=")
    if equals:
        text = value if key.lower() in COLUMNS else text
    words = re.split(r"[\s._-]+", re.sub(r"(?<=[a-z])\d+$", "", text.lower()))
    words = [word for word in words if word and not word.isdecimal() and word != "of"]
    found = [word for word in words if word in KIND_OF]
    if len(found) != 1 or (words[0] != found[0] and words[-1] != found[0]):
        return None
    return KIND_OF[found[0]], " ".join(word for word in words if word != found[0])


def is_for_training(name: str) -> bool:
    kind = kind_of(name)
    return kind is not None and kind[0] == TRAIN


def select(
    names: Sequence[str],
    source: str,
    wanted: str | None = None,
    *,
    stems: bool = False,
    classes: bool = False,
) -> Selection:
    """Paths of ``names`` to train on.

    ``wanted`` names the split, ``none`` takes all. With ``stems``, files are split by their names,
    too, such as shards of Parquet. With ``classes``, sibling folders with the same sub-folders are
    taken for splits. Raises ``DataError`` if it is not clear what to train on.
    """
    chosen = Selection([(name, name) for name in names])
    pending = None if wanted == NO_SPLIT else wanted
    while chosen.kept:
        level, at_files = _Level.of(chosen.kept, stems, classes), _only_files(chosen.kept)
        if pending and (taken := level.matching(pending)):
            pending = None
        elif pending:
            taken = level.for_training(source) if level.training else set()
        elif wanted == NO_SPLIT:
            taken = level.folders if level.is_of_splits or level.is_alike else set()
        else:
            taken = level.for_training(source)
        if taken:
            _keep(chosen, level, taken, stems)
        elif not at_files and level.is_passed_through:
            _descend(chosen, level.folders)
        elif level.has_files and len(level.folders) == 1 and _leads_to_splits(chosen.kept, level):
            _keep(chosen, level, level.folders, stems)
            chosen.split = ""
        else:
            break
        if at_files or (_only_files(chosen.kept) and not stems):
            break
    if pending:
        seen = sorted({part for name in names for part in name.split("/")[:-1]})
        raise DataError(
            source, [f"has no split {pending!r}; there are the folders {', '.join(seen) or 'none'}"]
        )
    return chosen


@dataclass(frozen=True)
class _Level:
    """Folders that stand side by side, and with ``stems`` files, too."""

    folders: set[str]
    has_files: bool
    kinds: dict[str, tuple[str, str]]
    """Kind and other words of the folders that are splits."""
    copies: set[str]
    """Folders that hold the splits once more."""
    is_alike: bool
    """True if the folders have mostly the same sub-folders, at least two."""
    nested: set[str]
    """Splits that hold two or more folders and no files."""
    stems: bool
    classes: bool

    @classmethod
    def of(cls, kept: list[tuple[str, str]], stems: bool, classes: bool) -> _Level:
        tops = _tops(kept, stems)
        folders = tops - {""}
        kinds = {top: kind for top in folders if (kind := kind_of(top))}
        copies = {top for top in folders - kinds.keys() if _repeats(kept, top, set(kinds))}
        alike = classes and len(folders) > 1 and not are_parts(folders) and _alike(kept, folders)
        below = {top: _sub_folders(kept, top) for top in kinds} if classes and not stems else {}
        nested = {top for top, inner in below.items() if len(inner) > 1 and "" not in inner}
        return cls(folders, "" in tops, kinds, copies, alike, nested, stems, classes)

    @property
    def is_of_splits(self) -> bool:
        others = self.folders - self.kinds.keys() - self.copies
        rests = {rest for _, rest in self.kinds.values()}
        return (
            len(self.kinds) > 1
            and (not others or self.is_alike or (self.stems and bool(self.training)))
            and (len(rests) == 1 or _is_plain(rests) or self.is_alike or self.stems)
        )

    @property
    def training(self) -> set[str]:
        return {top for top, (kind, _) in self.kinds.items() if kind == TRAIN}

    @property
    def is_passed_through(self) -> bool:
        return not self.has_files and (len(self.folders) == 1 or are_parts(self.folders))

    def matching(self, wanted: str) -> set[str]:
        """Folders that ``--split wanted`` means: of this name, or else of this kind."""
        name = ENDINGS.sub("", wanted).lower()
        exact = {top for top in self.folders if ENDINGS.sub("", top).lower() == name}
        kind = KIND_OF.get(wanted.lower())
        return exact or {top for top, found in self.kinds.items() if found[0] == kind}

    def for_training(self, source: str) -> set[str]:
        """Folders of the split for training; empty if these are no splits."""
        taken = self.training
        if not self.is_of_splits:
            if self.stems:
                return taken if len(self.folders) > 1 else set()
            others = self.folders - self.kinds.keys() - self.copies
            several = self.classes and len({kind for kind, _ in self.kinds.values()}) > 1
            if several and others and len(taken) == 1 and taken <= self.nested:
                return taken
            if several or (others and self.nested) or self.is_alike:
                raise unclear(source, sorted(self.folders))
            return set()
        if not taken:
            raise unclear(source, sorted(self.kinds))
        bare = {_bare(top) for top in taken}
        if len({self.kinds[top][1] for top in taken}) > 1 or (len(bare) > 1 and not self.stems):
            raise unclear(source, sorted(taken))
        return taken


def check_shards(names: list[str], source: str) -> None:
    """Raise ``DataError`` unless all ``names`` are numbered parts of one whole."""
    if len({_bare(name) for name in names}) > 1:
        raise unclear(source, names)


def _tops(kept: list[tuple[str, str]], stems: bool) -> set[str]:
    tops = set()
    for _, rest in kept:
        top, slash, _ = rest.partition("/")
        tops.add(top if slash or stems else "")
    return tops


def _keep(chosen: Selection, level: _Level, taken: set[str], stems: bool) -> None:
    kept = []
    kinds = {level.kinds[top][0] if top in level.kinds else top for top in taken}
    split = kinds.pop() if len(kinds) == 1 else "all"
    chosen.split = split if chosen.split in ("", split) else f"{chosen.split}/{split}"
    for name, rest in chosen.kept:
        top, slash, below = rest.partition("/")
        if top in taken and (slash or stems):
            kept.append((name, below if slash else rest))
            continue
        if top in level.copies:
            reason = NESTED_COPY
        elif top in level.kinds:
            reason = f"split {level.kinds[top][0]}"
        else:
            reason = f"beside the split {split}"
        shown = below if slash and top in (*level.kinds, *level.copies) else rest
        # An inner folder of the same name, as in seg_test/seg_test, is not repeated.
        chosen.left_out.setdefault(reason, []).append(shown.removeprefix(f"{top}/"))
    chosen.kept = kept


def _descend(chosen: Selection, folders: set[str]) -> None:
    if len(folders) == 1 and (kind := kind_of(next(iter(folders)))) and not chosen.split:
        chosen.split = kind[0]
    chosen.kept = [(name, rest.partition("/")[2] or rest) for name, rest in chosen.kept]


def _sub_folders(kept: list[tuple[str, str]], top: str) -> set[str]:
    prefix = f"{top}/"
    rests = (rest.removeprefix(prefix) for _, rest in kept if rest.startswith(prefix))
    return {rest.partition("/")[0] if "/" in rest else "" for rest in rests}


def _repeats(kept: list[tuple[str, str]], top: str, splits: set[str]) -> bool:
    inner = _sub_folders(kept, top)
    while len(inner) == 1 and "" not in inner and not inner & splits:
        top = f"{top}/{inner.pop()}"
        inner = _sub_folders(kept, top)
    return len(splits) > 1 and inner - {""} <= splits and bool(inner & splits)


def _leads_to_splits(kept: list[tuple[str, str]], level: _Level) -> bool:
    """True if below the one folder, and folders around everything in it, there are splits."""
    (top,) = level.folders
    inner = {name for name in _sub_folders(kept, top) if name}
    while len(inner) == 1:
        top = f"{top}/{inner.pop()}"
        inner = {name for name in _sub_folders(kept, top) if name}
    return any(kind_of(name) for name in inner) and all(kind_of(name) for name in inner)


def _alike(kept: list[tuple[str, str]], folders: set[str]) -> bool:
    """True if all ``folders`` have mostly the same sub-folders, two or more, and no files."""
    keys = {top.partition("=")[0].lower() if "=" in top else "" for top in folders}
    if len(keys) == 1 and not keys & {"", *COLUMNS}:  # hair=red, hair=blue
        return False
    sub_folders = {top: set[str]() for top in folders}
    for _, rest in kept:
        top, slash, below = rest.partition("/")
        if slash:
            sub_folders[top].add(below.partition("/")[0] if "/" in below else "")
    every, shared = set().union(*sub_folders.values()), set.intersection(*sub_folders.values())
    if all(kind_of(name) for name in every):  # the splits of each class
        return False
    return len(every) > 1 and "" not in every and 2 * len(shared) >= len(every)


def are_parts(folders: set[str]) -> bool:
    """True for ``part1``, ``part2`` and other numbered parts of one whole."""
    bare = {_bare(top) for top in folders}
    packed = all(ENDINGS.search(top) for top in folders)
    numbered = all(re.search(r"\d", top) for top in folders)
    return packed or (len(bare) == 1 and bare <= set(PARTS) and numbered)


def _bare(name: str) -> str:
    """``name`` without numbers and endings: ``batch`` of ``batch_2.zip``."""
    return re.sub(r"[\d\s._-]+(of)?", "", ENDINGS.sub("", name.lower()))


def _only_files(kept: list[tuple[str, str]]) -> bool:
    return all("/" not in rest for _, rest in kept)


def _is_plain(rests: set[str]) -> bool:
    return rests <= {"", "set", "data", "dataset", "images", "image", "img", "split"}


def unclear(source: str, candidates: list[str]) -> DataError:
    """Error that lists what may be splits, and the option that chooses."""
    first = shlex.quote(next(filter(is_for_training, candidates), candidates[0]))
    return DataError(
        source,
        [
            f"{', '.join(candidates)} look like splits, and it is not clear which one to train "
            f"on: name one with --split {first}, or read all with --split {NO_SPLIT}"
        ],
    )
