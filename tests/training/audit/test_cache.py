"""A second audit does little work and finds the same; a change is never missed."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.audit.conftest import scene, write
from training.audit import label_models, pipeline
from training.audit.cache import Cache
from training.audit.image_stats import look_at_all
from training.audit.labels import describe
from training.audit.near import near_pairs
from training.audit.pipeline import AuditOptions, run_audit
from training.audit.report import Audit
from training.data.sources import open_data
from training.progress import Reporter


class Work:
    """Counts what was looked at, compared and described, and audits with one cache."""

    def __init__(self, data: Path, home: Path | None) -> None:
        self._data, self._home = data, home
        self.looked = self.compared = self.described = 0

    def audit(self, *, labels: bool = False) -> Audit:
        self.looked = self.compared = self.described = 0
        cache = Cache(self._home, str(self._data))
        return run_audit(open_data(str(self._data)), AuditOptions(labels=labels, cache=cache), Reporter())

    def found(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(finding.check, finding.pictures) for finding in self.audit().findings]


@pytest.fixture
def audits(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    write(pets / "cats" / "near.jpg", scene(1))
    (pets / "cats" / "broken.png").write_bytes(b"")
    work = Work(pets, tmp_path / "cache")

    def counted_looks(pictures, *rest):  # type: ignore[no-untyped-def]
        work.looked += len(pictures)
        return look_at_all(pictures, *rest)

    def counted_pairs(thumbnails, queries, **rest):  # type: ignore[no-untyped-def]
        work.compared += len(queries)
        return near_pairs(thumbnails, queries, **rest)

    def counted_describe(thumbnails, reporter):  # type: ignore[no-untyped-def]
        work.described += len(thumbnails)
        return describe(thumbnails, reporter)

    monkeypatch.setattr(pipeline, "look_at_all", counted_looks)
    monkeypatch.setattr(pipeline, "near_pairs", counted_pairs)
    monkeypatch.setattr(label_models, "describe", counted_describe)
    return work


def test_a_second_run_looks_at_nothing_and_finds_the_same(audits: Work) -> None:
    first = audits.found()
    assert (audits.looked, audits.compared) == (26, 25)
    assert audits.found() == first
    assert (audits.looked, audits.compared) == (0, 0)


def test_without_a_folder_nothing_is_kept(pets: Path, tmp_path: Path) -> None:
    work = Work(pets, None)
    assert work.found() == work.found()
    assert not (tmp_path / "cache").exists()


def test_a_new_picture_alone_is_compared_with_all(audits: Work, pets: Path) -> None:
    before = audits.found()
    write(pets / "dogs" / "turned.jpg", scene(4)[:, ::-1])
    after = audits.found()
    assert (audits.looked, audits.compared) == (1, 1)
    assert set(after) - set(before) == {("near-duplicate", ("dogs/04.png", "dogs/turned.jpg"))}


def test_a_removed_picture_is_forgotten(audits: Work, pets: Path) -> None:
    audits.audit()
    (pets / "cats" / "near.jpg").unlink()
    (pets / "cats" / "broken.png").unlink()
    assert audits.found() == []
    assert (audits.looked, audits.compared) == (0, 0)


def test_a_changed_file_is_looked_at_again_even_where_size_and_name_stay(audits: Work, pets: Path) -> None:
    audits.audit()
    file = pets / "cats" / "01.png"
    status = file.stat()
    shutil.copy(pets / "cats" / "03.png", file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert ("duplicate", ("cats/01.png", "cats/03.png")) in audits.found()
    assert audits.looked == 1


@pytest.mark.parametrize("name", ["looks.json", "looks.npy", "near.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 1}', b"\x93NUMPY"])
def test_a_damaged_cache_is_as_good_as_none(audits: Work, tmp_path: Path, name: str, content: bytes) -> None:
    first = audits.found()
    (file,) = (tmp_path / "cache").rglob(name)
    file.write_bytes(content)
    assert audits.found() == first


def test_a_cache_that_cannot_be_written_is_done_without(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Work(pets, tmp_path / "file" / "cache").found() == []


def test_probabilities_are_used_again_after_a_fix_and_not_after_new_pictures(
    audits: Work, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "FEWEST_PICTURES", 20)
    monkeypatch.setattr("training.audit.labels._FILTERS_OF_FEW", 10)
    monkeypatch.setattr("training.audit.patches._PATCHES", 1_000)
    audits.audit(labels=True)
    assert audits.described == 25
    (pets / "cats" / "03.png").unlink()
    audits.audit(labels=True)
    assert audits.described == 0
    write(pets / "cats" / "new.png", scene(77))
    audits.audit(labels=True)
    assert audits.described == 25


def test_pairs_among_old_and_new_are_those_of_one_run() -> None:
    images = np.stack([scene(seed)[..., 1] for seed in range(30)])
    images = np.concatenate([images, images[5:7, :, ::-1]])
    together = near_pairs(images, np.arange(32), threshold=0.98, reporter=Reporter())
    new = near_pairs(images, np.array([30, 31]), threshold=0.98, reporter=Reporter())
    assert {(pair.first, pair.second) for pair in new} == {(pair.first, pair.second) for pair in together}
