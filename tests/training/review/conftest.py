"""A review of pictures with known defects, without a server."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.training.audit.conftest import scene, write
from training.data.decisions import decisions_file
from training.data.sources import open_data
from training.review.journal import Journal, open_journal
from training.review.questions import Question
from training.review.session import Session

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


@dataclass(frozen=True)
class Reviewed:
    data: Path
    session: Session
    journal: Journal

    def number(self, check: str) -> int:
        return next(number for number, each in enumerate(self.session.questions) if each.check == check)


@pytest.fixture
def defects(tmp_path: Path) -> Path:
    """Cats, dogs and a class with a hostile name; a copy within a class, one across classes, and a broken file."""
    data = tmp_path / "pets"
    for row in range(12):
        write(data / ("cats" if row % 2 else "dogs") / f"{row:02}.png", scene(row))
    for row in range(2):
        write(data / HOSTILE / f"{HOSTILE}{row}.png", scene(50 + row))
    shutil.copy(data / "cats" / "01.png", data / "cats" / "copy.png")
    shutil.copy(data / "cats" / "03.png", data / "dogs" / "conflict.png")
    (data / "cats" / "broken.png").write_bytes(b"")
    return data


@pytest.fixture
def reviewed(defects: Path) -> Iterator[Reviewed]:
    """A session of one question of each kind, and one about a picture whose name, class and reason are hostile."""
    dataset = open_data(str(defects))
    by_id = {picture.id: picture for picture in dataset.pictures}
    asked = [
        Question("corrupt", ("It is empty.",), (by_id["cats/broken.png"],)),
        Question("conflict", ("In two classes.",), (by_id["dogs/conflict.png"], by_id["cats/03.png"])),
        Question("duplicate", ("The same.",), (by_id["cats/copy.png"], by_id["cats/01.png"])),
        Question("wrong-label", ("Looks like 'dogs'.",), (by_id["cats/05.png"],), (("dogs", 0.93), ("cats", 0.02))),
        Question("blurred", (HOSTILE,), (by_id[f"{HOSTILE}/{HOSTILE}0.png"],)),
    ]
    with open_journal(decisions_file(defects)) as journal:
        yield Reviewed(defects, Session(asked, [], labels=dataset.labels, was={}, journal=journal), journal)
