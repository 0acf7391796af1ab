"""Find and read the pictures that a command names. What is named itself is taken as it is: its decoder judges it."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from app.contract.picture_files import SUFFIXES, Folder, LeftOut

STANDARD_INPUT = "-"


class Picture(NamedTuple):
    """The bytes of a file, and what it is called."""

    name: str
    data: bytes


class Unreadable(NamedTuple):
    """What a name leads to instead, as a sentence."""

    name: str
    reason: str


def find(arguments: Iterable[str | Unreadable], left_out: list[LeftOut]) -> Iterator[str | Unreadable]:
    """Yield the files that each argument stands for: itself, what a pattern fits, or the pictures below a folder.

    Of a folder, that is every file that `app.contract.picture_files` takes for a picture, in the order of names; the
    others are added to `left_out`. `-` stands for itself.
    """
    for argument in arguments:
        if argument == STANDARD_INPUT or isinstance(argument, Unreadable):
            yield argument
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            fitting = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - a Path would rewrite what was given
            if not fitting:
                yield Unreadable(argument, "No file fits this pattern.")
            for path in fitting:
                yield from _below(path, left_out) if Path(path).is_dir() else (path,)
        elif Path(argument).is_dir():
            empty = True
            for found in _below(argument, left_out):
                empty = False
                yield found
            if empty:
                yield Unreadable(
                    argument, f"This folder has no file that ends in {' '.join(SUFFIXES)}, and no other picture."
                )
        else:
            yield argument


def lines_of(file: str) -> Iterator[str | Unreadable]:
    """Yield the names that a file holds, one a line; `-` is the standard input."""
    try:
        with _standard_input() if file == STANDARD_INPUT else Path(file).open("rb") as lines:
            for line in lines:
                if name := os.fsdecode(line.rstrip(b"\r\n")):
                    yield name
    except OSError as exc:
        yield Unreadable(file, f"{exc.strerror}.")


def read(found: Iterable[str | Unreadable]) -> Iterator[Picture | Unreadable]:
    """Read each file that was found, when its turn comes."""
    for each in found:
        yield each if isinstance(each, Unreadable) else _read(each)


def _read(path: str) -> Picture | Unreadable:
    name = os.fsencode(path).decode("utf-8", "replace")  # a name need not be text
    try:
        with _standard_input() if path == STANDARD_INPUT else Path(path).open("rb") as file:
            return Picture(name, file.read())
    except OSError as exc:
        return Unreadable(name, f"{exc.strerror}.")


def _standard_input() -> BinaryIO:
    """Open the standard input once more: Python closes its own at the end, and waits for a thread that reads it."""
    return open(sys.stdin.fileno(), "rb", closefd=False)


def _below(path: str, left_out: list[LeftOut]) -> Iterator[str | Unreadable]:
    waiting = [Folder.at(path)]
    while waiting:
        folder = waiting.pop()
        try:
            level = folder.look()
        except OSError as exc:
            yield Unreadable(folder.path, f"{exc.strerror}.")
            continue
        left_out += level.left_out
        yield from level.pictures
        waiting += reversed(level.folders)
