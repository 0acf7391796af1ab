"""The journal of a shard: the outcome of each of its pictures so far, by path, stamp and digest.

It is an append-only file of JSON lines, so a killed job loses at most the line that it was writing. A later line about
a picture replaces an earlier one. Each line is one of these:

    {"pictures": ["a.png", …]}     what the shard holds, by path; the lines that follow name pictures by place
    {"rows": [0, …], "sha256": […], "stamps": […], "failures": {"0": ["…", "code"]}, "values": "base64 of float32"}
    {"part": "part-00000.csv", "bytes": 1234}     the part with all of them is written
"""

import base64
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from app.cli.predict.bulk.answers import Answer
from app.client import Failure


@dataclass
class Recorded:
    """What a journal says. `answers` are by path, without the pictures' names; `part` is (name, bytes) if complete."""

    pictures: list[str] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    part: tuple[str, int] | None = None
    whole_bytes: int = 0
    """Where the last whole line ends."""


class JournalWriter:
    """Appends to a journal that is open."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def begin(self, pictures: Sequence[str]) -> None:
        """Record the pictures of the shard."""
        self._append(json.dumps({"pictures": pictures}).encode())  # not orjson: a path need not be text

    def add(self, places: Sequence[int], answers: Sequence[Answer]) -> None:
        """Record the answers to the pictures at these places."""
        failures = {
            str(row): [each.outcome.error, each.outcome.code]
            for row, each in enumerate(answers)
            if isinstance(each.outcome, Failure)
        }
        values = [each.outcome.tobytes() for each in answers if not isinstance(each.outcome, Failure)]
        line = {
            "rows": places,
            "sha256": [each.sha256 for each in answers],
            "stamps": [each.stamp for each in answers],
            "failures": failures,
            "values": base64.b64encode(b"".join(values)).decode(),
        }
        self._append(orjson.dumps(line))

    def complete(self, part: str, size: int) -> None:
        """Say that the part is written, and make the journal durable."""
        self._append(orjson.dumps({"part": part, "bytes": size}))
        os.fsync(self._stream.fileno())

    def _append(self, line: bytes) -> None:
        self._stream.write(line + b"\n")
        self._stream.flush()


def recorded_in(file: Path, *, values: bool = True) -> Recorded:
    """Return the content of a journal, up to an incomplete last line; empty if there is no journal.

    Without `values`, the answers have empty ones. Raises OSError.
    """
    found = Recorded()
    try:
        stream = file.open("rb")
    except FileNotFoundError:
        return found
    with stream:
        for line, content in _lines(stream):
            if "pictures" in content:
                found.pictures, found.part = content["pictures"], None
            elif "part" in content:
                found.part = content["part"], content["bytes"]
            else:
                found.part = None
                _take(found, content, values=values)
            found.whole_bytes += len(line)
    return found


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for line in stream:
        try:
            content = json.loads(line) if line.startswith(b'{"pictures"') else orjson.loads(line)
        except ValueError:
            return
        if not line.endswith(b"\n"):
            return
        yield line, content


def _take(found: Recorded, content: dict[str, Any], *, values: bool) -> None:
    failures = content["failures"]
    there = len(content["rows"]) - len(failures)
    flat = np.frombuffer(base64.b64decode(content["values"]) if values else b"", np.float32)
    rows = iter(flat.reshape(there, -1) if there else ())
    for row, place in enumerate(content["rows"]):
        failure = failures.get(str(row))
        found.answers[found.pictures[place]] = Answer(
            "", content["sha256"][row], content["stamps"][row], Failure(*failure) if failure else next(rows)
        )
