"""Read a person's decisions about pictures from an append-only CSV file, and apply them to the data.

Each line is one decision, flushed to disk before the next picture is shown. It names its picture by content, so it
still applies when files are moved or renamed; among equal files it applies to the one with its path.
"""

import csv
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from app.contract.picture_files import OWN_FOLDER
from app.contract.picture_tree import PackedFile
from app.system.wording import count_of
from training.data.dataset import Decided, Listing, Picture
from training.errors import DataError

Action = Literal["relabel", "keep", "drop", "later", "undo"]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True)
class Decision:
    """A line of the file.

    `label` is the new one, empty unless it is a relabelling; `was` the label that the source gives. `check` and
    `reason` are those of the finding about the picture, and `other` is the content of the picture that it was compared
    with. `at` is a time of fixed length: as the last field, it shows whether a line is complete.
    """

    action: Action
    label: str
    check: str
    path: str
    was: str
    content: str
    other: str
    reason: str
    at: str

    @property
    def question(self) -> tuple[str, ...]:
        """The question that the decision answers. Only the last answer to a question counts."""
        return self.content, self.path, self.check, self.other

    def line(self) -> bytes:
        text = io.StringIO(newline="")
        values = (getattr(self, column) for column in _COLUMNS)
        csv.writer(text, lineterminator="\n").writerow([_escaped(value) for value in values])
        return text.getvalue().encode()


_COLUMNS = tuple(field.name for field in fields(Decision))
HEADER = (",".join(_COLUMNS) + "\n").encode()


def decisions_file(data: Path) -> Path:
    """Return the file of decisions about a folder's pictures, or that beside a file of pictures."""
    if data.is_dir():
        return data / OWN_FOLDER / "decisions.csv"
    return data.parent / OWN_FOLDER / f"{data.name}.decisions.csv"


def read_decisions(file: Path) -> list[Decision]:
    """Return all decisions in the order in which they were made, none if there is no file. Raises DataError."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise DataError(f"{file} cannot be read: {exc.strerror}.") from exc
    return parse_decisions(data, str(file))[0]


def parse_decisions(data: bytes, shown: str) -> tuple[list[Decision], int]:
    """Return the decisions of a file and how many of its bytes they are; a truncated last line is ignored.

    Raises DataError if any other line is no decision; `shown` is the file's name in messages.
    """
    found: list[Decision] = []
    read = 0
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        whole = line.endswith(b"\n")
        decision = _parsed(line) if number > 1 else None
        if decision is not None:
            found.append(decision)
        elif not whole:
            break
        elif line.strip() and not (number == 1 and line.rstrip() == HEADER.rstrip()):
            raise DataError(f"{shown}, line {number}, is not a decision. Fix or remove that line.")
        read += len(line)
    return found, read


def not_taken_back(decisions: Iterable[Decision]) -> list[Decision]:
    """Return the decisions without each "undo" and what it takes back: the last one on the same question."""
    made: list[Decision] = []
    for decision in decisions:
        if decision.action != "undo":
            made.append(decision)
        elif (last := next((each for each in reversed(made) if each.question == decision.question), None)) is not None:
            made.remove(last)
    return made


def standing(decisions: Iterable[Decision]) -> list[Decision]:
    """Return the last answer to each question, in the order in which these were given, without answers that were taken
    back."""
    last_of: dict[tuple[str, ...], Decision] = {}
    for decision in reversed(not_taken_back(decisions)):
        last_of.setdefault(decision.question, decision)
    return list(reversed(last_of.values()))


def content_of(picture: Picture) -> str:
    """Return the identity of a picture: its size in bytes, and their SHA-256. Raises DataError."""
    if isinstance(picture.content, np.ndarray):
        shape = f"{picture.content.shape} {picture.content.dtype} ".encode()
        return f"{picture.content.nbytes}:{hashlib.sha256(shape + picture.content.tobytes()).hexdigest()}"
    data = picture.encoded()
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Answer:
    """A decision in force, its picture with the label of the source, and the pictures that it was compared with,
    several if there are equal files."""

    decision: Decision
    picture: Picture
    others: tuple[Picture, ...]

    @property
    def counts(self) -> bool:
        """Whether the source still gives the label that the decision was about."""
        return self.picture.label in (self.decision.was, self.decision.label)


def answers(pictures: Sequence[Picture], decisions: Iterable[Decision]) -> list[Answer]:
    """Return the decisions in force in their order, without those about missing pictures.

    It reads only pictures of the sizes that were decided on. Among equal files, a decision applies to the one at its
    path; moved files are distinguished by their labels.
    """
    stand = standing(decisions)
    equal = _by_content(pictures, {content for each in stand for content in (each.content, each.other) if content})
    paths: dict[str, dict[str, str]] = defaultdict(dict)
    for each in stand:
        paths[each.content][each.path] = each.was
    picture_of = {
        (content, path): picture
        for content, was in paths.items()
        for path, picture in _assigned(was, equal.get(content, ())).items()
    }
    return [
        Answer(each, picture, tuple(other for other in equal.get(each.other, ()) if other.id != picture.id))
        for each in stand
        if (picture := picture_of.get((each.content, each.path))) is not None
    ]


def corrected(listing: Listing, decisions: Iterable[Decision]) -> Listing:
    """Return the content of a source with a person's decisions applied.

    If the source has changed the label since, the source's label counts.
    """
    labels = {picture.label for picture in listing.pictures}
    dropped: dict[str, Picture] = {}
    new: dict[str, str] = {}
    kept: dict[str, set[tuple[str, str]]] = defaultdict(set)
    unknown: dict[str, list[str]] = defaultdict(list)
    for answer in answers(listing.pictures, decisions):
        decision, picture = answer.decision, answer.picture
        if decision.action == "drop":
            dropped[picture.id] = picture
        elif not answer.counts or decision.action == "later":
            continue
        elif decision.label and decision.label not in labels:
            unknown[decision.label].append(picture.id)
        elif decision.label:
            new[picture.id] = decision.label
        if decision.action in ("keep", "relabel") and not decision.other:
            kept[decision.check].add((picture.id, ""))
        elif decision.action == "keep":
            kept[decision.check] |= {(picture.id, other.id) for other in answer.others}
    left = [picture for picture in listing.pictures if picture.id not in dropped]
    return Listing(
        pictures=[replace(picture, label=new.get(picture.id, picture.label)) for picture in left],
        left_out=listing.left_out,
        faults=[*listing.faults, *(_no_class(label, named) for label, named in unknown.items())],
        decided=Decided(
            dropped=tuple(dropped.values()),
            was={picture.id: picture.label for picture in left if picture.label != new.get(picture.id, picture.label)},
            kept={check: frozenset(pairs) for check, pairs in kept.items()},
        ),
    )


def describe_decided(decided: Decided) -> str:
    """Return "2 pictures relabelled and 1 dropped by a person's decisions"; empty if there are none."""
    parts = []
    if decided.was:
        parts.append(f"{count_of(len(decided.was), 'picture')} relabelled")
    if decided.dropped:
        parts.append(f"{count_of(len(decided.dropped), 'picture')} dropped")
    return f"{' and '.join(parts)} by a person's decisions" if parts else ""


def _no_class(label: str, pictures: Sequence[str]) -> str:
    return (
        f"A person decided that {pictures[0]} is of class '{label}'"
        + (f", and {len(pictures) - 1:,} more" if len(pictures) > 1 else "")
        + f", but the data has no such class. Add the class, or change these lines of {OWN_FOLDER}."
    )


def _assigned(was: Mapping[str, str], equal: Sequence[Picture]) -> dict[str, Picture]:
    """Return, for each path that decisions name, one of the equal pictures; `was` has the source's label by path."""
    left = {picture.id: picture for picture in equal}
    found = {path: left.pop(path) for path in was if path in left}
    for path in sorted(was.keys() - found.keys())[: len(left)]:
        nearest = min(left.values(), key=lambda picture: (picture.label != was[path], picture.id))
        found[path] = left.pop(nearest.id)
    return found


def _by_content(pictures: Iterable[Picture], contents: Collection[str]) -> dict[str, list[Picture]]:
    sizes = {int(content.partition(":")[0]) for content in contents}
    found: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        with suppress(DataError):  # code that needs the pixels of an unreadable picture reports it
            if _size(picture) in sizes and (content := content_of(picture)) in contents:
                found[content].append(picture)
    return found


def _size(picture: Picture) -> int | None:
    if isinstance(picture.content, np.ndarray):
        return picture.content.nbytes
    if isinstance(picture.content, PackedFile):
        return picture.content.size
    try:
        return picture.content.stat().st_size
    except OSError:
        return None  # a manifest may list a missing file; the reader of manifests reports it


def _parsed(line: bytes) -> Decision | None:
    try:
        row = next(csv.reader([line.decode().rstrip("\r\n")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None
    if len(row) != len(_COLUMNS):
        return None
    found = Decision(*(_unescaped(value) for value in row))  # type: ignore[arg-type] # the action is checked below
    sizes = (content.partition(":")[0].isdecimal() for content in (found.content, found.other) if content)
    is_one = found.action in get_args(Action) and found.content and all(sizes) and _TIME.fullmatch(found.at)
    return found if is_one else None


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), text)
