"""What a person decided about pictures is what every command reads, wherever the files have gone since."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.audit.conftest import scene, write
from training.data.dataset import Dataset, Picture
from training.data.decisions import (
    HEADER,
    Action,
    Decision,
    content_of,
    decisions_file,
    parse_decisions,
    read_decisions,
    standing,
)
from training.data.folds import Fold, hold_out
from training.data.sources import open_data
from training.data.split import assign_splits, recorded_pictures
from training.errors import DataError

AT = "2026-11-26T12:00:00Z"


def decision(
    picture: Picture, action: Action, label: str = "", *, check: str = "wrong-label", other: Picture | None = None
) -> Decision:
    beside = "" if other is None else content_of(other)
    return Decision(action, label, check, picture.id, picture.label, content_of(picture), beside, "It is so.", AT)


def decide(data: Path, *decisions: Decision, tail: bytes = b"") -> Path:
    file = decisions_file(data)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(HEADER + b"".join(each.line() for each in decisions) + tail)
    return file


def by_id(data: Path) -> dict[str, Picture]:
    return {picture.id: picture for picture in open_data(str(data)).pictures}


def test_a_picture_has_the_label_that_a_person_gave_it_and_a_dropped_one_is_gone(pets: Path) -> None:
    before = by_id(pets)
    decide(pets, decision(before["cats/01.png"], "relabel", "dogs"), decision(before["cats/03.png"], "drop"))
    said: list[str] = []
    data = open_data(str(pets), say=said.append)
    after = {picture.id: picture.label for picture in data.pictures}
    assert after["cats/01.png"] == "dogs"
    assert before.keys() - after.keys() == {"cats/03.png"}
    assert said == ["1 picture relabelled and 1 picture dropped by a person's decisions"]
    assert {picture.id: picture.label for picture in data.of_source()} == {
        name: picture.label for name, picture in before.items()
    }


def test_later_and_undo_change_nothing(pets: Path) -> None:
    before = by_id(pets)
    first, second = before["cats/01.png"], before["cats/03.png"]
    decide(pets, decision(first, "later"), decision(second, "drop"), decision(second, "undo"))
    assert by_id(pets) == before


def test_undo_brings_back_the_answer_before(pets: Path) -> None:
    picture = by_id(pets)["cats/01.png"]
    made = [decision(picture, action) for action in ("keep", "drop", "undo")]
    assert [each.action for each in standing([decision(picture, "undo"), *made])] == ["keep"]


def test_a_moved_file_keeps_what_was_decided(pets: Path) -> None:
    picture = by_id(pets)["cats/01.png"]
    decide(pets, decision(picture, "relabel", "dogs"))
    (pets / "cats" / "01.png").rename(pets / "cats" / "renamed.png")
    assert by_id(pets)["cats/renamed.png"].label == "dogs"


def test_a_label_that_the_source_has_changed_since_counts_more(pets: Path) -> None:
    write(pets / "birds" / "00.png", scene(100))
    picture = by_id(pets)["cats/01.png"]
    decide(pets, decision(picture, "relabel", "dogs"))
    (pets / "cats" / "01.png").rename(pets / "birds" / "01.png")
    assert by_id(pets)["birds/01.png"].label == "birds"


def test_of_equal_files_the_one_that_was_meant_is_dropped_also_after_a_move(pets: Path) -> None:
    shutil.copy(pets / "cats" / "01.png", pets / "dogs" / "copy.png")
    decide(pets, decision(by_id(pets)["dogs/copy.png"], "drop", check="conflict"))
    assert "cats/01.png" in by_id(pets)
    assert "dogs/copy.png" not in by_id(pets)
    (pets / "dogs" / "copy.png").rename(pets / "dogs" / "another.png")
    assert "cats/01.png" in by_id(pets)
    assert "dogs/another.png" not in by_id(pets)


def test_a_line_that_was_cut_off_is_passed_over_at_every_byte(pets: Path) -> None:
    before = by_id(pets)
    whole, cut = decision(before["cats/01.png"], "drop"), decision(before["cats/03.png"], "relabel", "dogs").line()
    for length in range(len(cut) - 1):
        file = decide(pets, whole, tail=cut[:length])
        assert read_decisions(file) == [whole], cut[:length]
    assert len(read_decisions(decide(pets, whole, tail=cut[:-1]))) == 2  # an editor may leave out the last line break
    file.write_bytes(HEADER[:10])
    assert read_decisions(file) == []


def test_a_damaged_line_among_others_is_an_error_with_its_number(pets: Path) -> None:
    line = decision(by_id(pets)["cats/01.png"], "drop").line()
    decide(pets, tail=b"drop,nonsense\n" + line)
    with pytest.raises(DataError, match=r"decisions\.csv, line 2, is not a decision"):
        open_data(str(pets))


def test_odd_names_come_back_as_they_were() -> None:
    odd = Decision("drop", 'a,b\n"c"\r\\n', "conflict", "x\ny/=1;\\é.png", "<b>", "3:ab", "", "“q”\n", AT)
    line = odd.line()
    assert line.count(b"\n") == 1
    assert parse_decisions(HEADER + line, "")[0] == [odd]


def test_a_class_that_the_data_lacks_is_an_error_that_names_the_picture(pets: Path) -> None:
    decide(pets, decision(by_id(pets)["cats/01.png"], "relabel", "birds"))
    with pytest.raises(DataError, match=r"cats/01\.png is of class 'birds', but the data has no such class"):
        open_data(str(pets))
    assert open_data(str(pets), tolerant=True).faults


def test_manifests_archives_and_arrays_are_corrected_by_a_file_beside_them(pets: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "pets.csv"
    names = sorted(by_id(pets))
    manifest.write_text("path,label\n" + "".join(f"pets/{name},{name[:4]}\n" for name in names), encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in names:
            archive.write(pets / name, name)
    labels = np.array([row % 2 for row in range(12)])
    np.savez(tmp_path / "pets.npz", x_train=np.stack([scene(row) for row in range(12)]), y_train=labels)
    for data in (manifest, tmp_path / "pets.zip", tmp_path / "pets.npz"):
        first, second, *_ = open_data(str(data)).pictures
        other = next(label for label in open_data(str(data)).labels if label != first.label)
        decide(data, decision(first, "relabel", other), decision(second, "drop"))
        after = by_id(data)
        assert after[first.id].label == other, data
        assert second.id not in after, data
    assert {file.name for file in (tmp_path / ".imageclass").iterdir()} == {
        "pets.csv.decisions.csv", "pets.zip.decisions.csv", "pets.npz.decisions.csv",
    }  # fmt: skip


def test_nothing_is_read_for_a_decision_about_another_size(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = by_id(pets)["cats/01.png"]
    decide(pets, replace(decision(picture, "drop"), content="1:00"))
    monkeypatch.setattr(Picture, "encoded", lambda picture: pytest.fail(f"{picture.id} was read"))
    assert picture.id in by_id(pets)


def test_the_folder_of_decisions_is_no_file_that_was_left_out(pets: Path) -> None:
    decide(pets, decision(by_id(pets)["cats/01.png"], "keep"))
    assert open_data(str(pets)).left_out == ()


def test_a_recorded_split_does_without_what_was_dropped_since(pets: Path) -> None:
    record = assign_splits(open_data(str(pets)), seed=0, validation=0, test=0.5).to_csv()
    test = recorded_pictures(open_data(str(pets)), record, "test")
    decide(pets, decision(test[0], "drop"))
    assert recorded_pictures(open_data(str(pets)), record, "test") == test[1:]


def test_a_fold_keeps_what_was_decided(pets: Path) -> None:
    decide(pets, decision(by_id(pets)["cats/01.png"], "drop"))
    held: Dataset = hold_out(open_data(str(pets)), Fold(1, 2), seed=0, together={})
    assert [picture.id for picture in held.decided.dropped] == ["cats/01.png"]
