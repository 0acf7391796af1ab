"""Where labelled pictures come from, and what is said where they cannot be used."""

import gzip
import os
import struct
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.dataset import Dataset, Picture, sorted_labels
from training.data.sources import named, open_data
from training.errors import DataError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
RGB = np.arange(36, dtype=np.uint8).reshape(3, 4, 3) * 7


def write_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix if path.suffix.lower() in (".png", ".bmp") else ".png"
    path.write_bytes(cv2.imencode(suffix, GREY)[1].tobytes())
    return path


def write_classes(root: Path, *classes: str) -> Path:
    for name in classes:
        write_picture(root / name / "a.png")
    return root


def write_npz(path: Path, **arrays: NDArray[np.generic]) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def ids(dataset: Dataset) -> list[str]:
    return [picture.id for picture in dataset.pictures]


# Folders


def test_folder_of_class_folders_is_listed_sorted_and_recursively(tmp_path: Path) -> None:
    for name in ("dogs/b.JPG", "dogs/a.png", "cats/2024/may/c.TIFF", "cats/z.webp", "cats/notes.txt"):
        write_picture(tmp_path / "pets" / name)
    (tmp_path / "pets" / "cats" / "notes.txt").write_text("no picture")
    dataset = open_data(str(tmp_path / "pets"))
    assert dataset.origin == "pets"
    assert dataset.labels == ("cats", "dogs")
    assert ids(dataset) == ["cats/2024/may/c.TIFF", "cats/z.webp", "dogs/a.png", "dogs/b.JPG"]
    assert {picture.split for picture in dataset.pictures} == {None}
    assert dataset.pictures[0].label == "cats"


def test_origin_is_a_name_even_for_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_classes(tmp_path / "pets", "cats", "dogs"))
    assert open_data(".").origin == "pets"


def test_what_systems_and_tools_leave_behind_is_ignored(tmp_path: Path) -> None:
    write_classes(tmp_path, "cats", "dogs", ".ipynb_checkpoints", "__MACOSX", "cats/.ipynb_checkpoints", ".git")
    for name in (".DS_Store", "cats/.DS_Store", "cats/._a.png", "cats/Thumbs.db"):
        write_picture(tmp_path / name)
    assert ids(open_data(str(tmp_path))) == ["cats/a.png", "dogs/a.png"]


def test_labels_in_decomposed_unicode_are_composed(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Äpfel")
    dataset = open_data(str(write_classes(tmp_path, decomposed, "Birnen")))
    assert dataset.labels == ("Birnen", "Äpfel")
    assert ids(dataset) == ["Birnen/a.png", "Äpfel/a.png"]
    assert all(picture.encoded() for picture in dataset.pictures)


@pytest.mark.skipif(os.name == "nt", reason="names of bytes are a thing of POSIX")
def test_file_name_that_is_no_unicode_gets_an_id_that_can_be_written(tmp_path: Path) -> None:
    write_classes(tmp_path, "cats", "dogs")
    try:
        (tmp_path / "cats" / "a.png").rename(tmp_path / "cats" / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert ids(open_data(str(tmp_path)))[0].encode() == b"cats/\\udcff.png"


def test_labels_that_are_all_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    labels = [str(number) for number in range(12)]
    assert open_data(str(write_classes(tmp_path, *reversed(labels)))).labels == tuple(labels)


def test_labels_that_are_not_all_numbers_are_sorted_by_code_point() -> None:
    assert sorted_labels(["b", "10", "Z", "9", "a", "ä", "9"]) == ("10", "9", "Z", "a", "b", "ä")


@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_folder_that_is_split_already_keeps_its_splits(tmp_path: Path, validation: str) -> None:
    for split in ("train", validation, "test"):
        write_classes(tmp_path / split, "cats", "dogs")
    dataset = open_data(str(tmp_path))
    assert dataset.labels == ("cats", "dogs")
    assert {picture.id: picture.split for picture in dataset.pictures if picture.label == "cats"} == {
        "train/cats/a.png": "train",
        f"{validation}/cats/a.png": "validation",
        "test/cats/a.png": "test",
    }


def test_train_folder_alone_is_a_split(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", "cats", "dogs")
    assert {picture.split for picture in open_data(str(tmp_path)).pictures} == {"train"}


def test_class_called_train_is_a_class(tmp_path: Path) -> None:
    dataset = open_data(str(write_classes(tmp_path, "bus", "train")))
    assert dataset.labels == ("bus", "train")
    assert {picture.split for picture in dataset.pictures} == {None}


def test_classes_called_like_splits_without_train_are_classes(tmp_path: Path) -> None:
    assert open_data(str(write_classes(tmp_path, "test", "val"))).labels == ("test", "val")


def test_splits_beside_another_folder_are_not_taken_for_classes(tmp_path: Path) -> None:
    write_classes(tmp_path, "train/cats", "test/cats", "annotations")
    with pytest.raises(DataError, match="move 'annotations' elsewhere"):
        open_data(str(tmp_path))


def test_class_of_the_test_split_that_train_lacks_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, "train/cats", "train/dogs", "test/cats", "test/owls")
    with pytest.raises(DataError, match="no training pictures of class 'owls'"):
        open_data(str(tmp_path))


def test_split_of_loose_pictures_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, "train/cats", "train/dogs", "test")
    with pytest.raises(DataError, match=r"test has no class folders"):
        open_data(str(tmp_path))


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_empty_class_is_named(tmp_path: Path, content: str | None) -> None:
    write_classes(tmp_path, "cats", "dogs")
    (tmp_path / "owls").mkdir()
    if content:
        (tmp_path / "owls" / content).write_text("none yet")
    with pytest.raises(DataError, match=r"Class 'owls' .* has no pictures"):
        open_data(str(tmp_path))


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds one class \('cats'\); a classifier needs at least two"):
        open_data(str(write_classes(tmp_path, "cats")))


def test_folder_one_level_too_high_is_told_the_right_one(tmp_path: Path) -> None:
    write_classes(tmp_path, "images/cats", "images/dogs")
    with pytest.raises(DataError, match=r"name .*images if those are the classes"):
        open_data(str(tmp_path))


def test_loose_pictures_need_class_folders(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="has no class folders"):
        open_data(str(tmp_path))


def test_files_are_not_read_when_the_data_is_opened(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        write_picture(tmp_path / name / "a.png").write_bytes(b"")
    dataset = open_data(str(tmp_path))
    (tmp_path / "cats" / "a.png").unlink()
    assert dataset.pictures[1].encoded() == b""
    with pytest.raises(DataError, match=r"cats/a\.png cannot be read: No such file"):
        dataset.pictures[0].encoded()


# Pictures


def test_file_is_encoded_as_it_lies_there(tmp_path: Path) -> None:
    file = write_picture(tmp_path / "a.bmp")
    assert Picture("a", "x", None, file).encoded() == file.read_bytes()


@pytest.mark.parametrize("array", [GREY, RGB], ids=["grey", "rgb"])
def test_array_is_encoded_without_loss(array: NDArray[np.uint8]) -> None:
    png = np.frombuffer(Picture("a", "x", None, array).encoded(), np.uint8)
    decoded = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    np.testing.assert_array_equal(decoded if array.ndim == 2 else decoded[..., ::-1], array)


def test_no_pictures_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing holds no pictures"):
        Dataset.of("nothing", [])


def test_empty_label_is_an_error() -> None:
    with pytest.raises(DataError, match="label is empty"):
        Dataset.of("data", [Picture("1", "", None, GREY), Picture("2", "b", None, GREY)])


# Keras's .npz


def test_npz_gives_the_splits_that_it_holds(tmp_path: Path) -> None:
    x, y = np.stack([GREY, GREY + 1]), np.array([10, 9])
    for name in ("validation", "val"):
        path = write_npz(
            tmp_path / "few.npz",
            **{"x_train": x, "y_train": y, "x_test": x, "y_test": y, f"x_{name}": x, f"y_{name}": y},
        )
        dataset = open_data(path)
        assert dataset.origin == "few.npz"
        assert dataset.labels == ("9", "10")
        assert {picture.id: (picture.label, picture.split) for picture in dataset.pictures} == {
            "train/00000": ("10", "train"),
            "train/00001": ("9", "train"),
            "test/00000": ("10", "test"),
            "test/00001": ("9", "test"),
            "validation/00000": ("10", "validation"),
            "validation/00001": ("9", "validation"),
        }
        np.testing.assert_array_equal(dataset.pictures[1].content, GREY + 1)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (GREY, GREY),
        (GREY.astype(np.int64), GREY),
        (GREY.astype(np.float32), GREY),
        (GREY.astype(np.float32) / 255, GREY),
        (GREY.astype(np.float64) / 255, GREY),
        (GREY[..., None], GREY),
        (RGB, RGB),
    ],
    ids=["uint8", "int64", "whole floats", "unit float32", "unit float64", "one channel", "rgb"],
)
def test_npz_pictures_become_grey_levels(tmp_path: Path, x: NDArray[np.generic], expected: NDArray[np.uint8]) -> None:
    dataset = open_data(write_npz(tmp_path / "a.npz", x_train=np.stack([x, x]), y_train=np.array([["a"], ["b"]])))
    assert dataset.labels == ("a", "b")
    content = dataset.pictures[1].content
    assert isinstance(content, np.ndarray)
    assert content.dtype == np.uint8
    np.testing.assert_array_equal(content, expected)


def test_npz_floats_have_one_scale_for_all_splits(tmp_path: Path) -> None:
    y = np.array([0, 1])
    path = write_npz(
        tmp_path / "a.npz", x_train=np.full((2, 2, 2), 9.0), y_train=y, x_test=np.ones((2, 2, 2)), y_test=y
    )
    assert open_data(path).pictures[2].content == pytest.approx(np.ones((2, 2)))


@pytest.mark.parametrize(
    "x",
    [
        np.full((2, 3, 3), -1),
        np.full((2, 3, 3), 256),
        np.full((2, 3, 3), 1.5),
        np.full((2, 3, 3), np.nan),
        np.full((2, 3, 3), "a"),
        np.full((2, 3, 3), True),
    ],
    ids=["negative", "too high", "broken", "nan", "text", "bool"],
)
def test_npz_of_other_values_is_refused(tmp_path: Path, x: NDArray[np.generic]) -> None:
    with pytest.raises(DataError, match=r"x_train holds .*whole numbers from 0 to 255, or floats"):
        open_data(write_npz(tmp_path / "a.npz", x_train=x, y_train=np.array([0, 1])))


@pytest.mark.parametrize("shape", [(2, 9), (2, 3, 3, 4), (2, 3, 3, 3, 1), (2, 0, 3)])
def test_npz_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"train pictures have .*shape"):
        open_data(write_npz(tmp_path / "a.npz", x_train=np.zeros(shape, np.uint8), y_train=np.array([0, 1])))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.eye(2), "y_train has the shape"),
        (np.array([0.0, 1.0]), "labels are integers or strings"),
        (np.array([0, 1, 2]), "2 train pictures but 3 labels"),
    ],
)
def test_npz_with_labels_that_do_not_fit_is_refused(tmp_path: Path, y: NDArray[np.generic], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(write_npz(tmp_path / "a.npz", x_train=np.stack([GREY, GREY]), y_train=y))


def test_npz_without_the_needed_arrays_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds images, x_test, but not x_train and y_train and y_test\. Needed are"):
        open_data(write_npz(tmp_path / "a.npz", images=GREY, x_test=GREY))


def test_npz_with_one_split_under_two_names_is_refused(tmp_path: Path) -> None:
    x, y = np.stack([GREY, GREY]), np.array([0, 1])
    names = {f"{kind}_{suffix}": array for suffix in ("train", "val", "valid") for kind, array in (("x", x), ("y", y))}
    with pytest.raises(DataError, match="one split under two names"):
        open_data(write_npz(tmp_path / "a.npz", **names))


def test_npz_is_never_unpickled(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="allow_pickle"):
        open_data(write_npz(tmp_path / "a.npz", x_train=np.array([GREY, None], object), y_train=np.array([0, 1])))


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 cut off"])
def test_npz_that_is_damaged_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz cannot be read as \.npz"):
        open_data(str(tmp_path / "a.npz"))


def test_single_array_called_npz_is_a_data_error(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(DataError, match="single array"):
        open_data(str(tmp_path / "a.npz"))


# IDX


@pytest.mark.parametrize(
    ("images", "labels", "test"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-{}-idx{}-ubyte"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "test-{}-idx{}-ubyte.gz"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte", "t10k-{}.idx{}-ubyte"),
    ],
)
def test_idx_files_are_found_in_their_folder_and_from_one_another(
    tmp_path: Path, images: str, labels: str, test: str
) -> None:
    for image_file, label_file in ((images, labels), (test.format("images", 3), test.format("labels", 1))):
        write_idx(tmp_path / image_file, np.stack([GREY, GREY + 1]))
        write_idx(tmp_path / label_file, np.array([3, 1], np.uint8))
    for path in (tmp_path, tmp_path / images, tmp_path / labels):
        dataset = open_data(str(path))
        assert dataset.origin == path.name
        assert dataset.labels == ("1", "3")
        assert ids(dataset) == ["train/00000", "train/00001", "test/00000", "test/00001"]
        np.testing.assert_array_equal(dataset.pictures[3].content, GREY + 1)


def test_idx_without_its_labels_says_which_file_is_missing(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", np.stack([GREY, GREY]))
    with pytest.raises(DataError, match="holds no train-labels-idx1-ubyte"):
        open_data(str(tmp_path))


def test_idx_of_tests_alone_is_not_enough(tmp_path: Path) -> None:
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([0, 1], np.uint8))
    with pytest.raises(DataError, match="holds no train-images-idx3-ubyte"):
        open_data(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train-labels-idx1-ubyte", b"\0\0"),
        ("train-labels-idx1-ubyte", struct.pack(">HBBI", 0, 8, 1, 3) + b"\0\1"),
        ("train-labels-idx1-ubyte", struct.pack(">HBBI", 0, 13, 1, 2) + b"\0\1"),
        ("train-labels-idx1-ubyte.gz", b"\0\0\x08\1"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(bytes(99))[:-9]),
    ],
    ids=["no header", "cut off", "floats", "not packed", "cut off while packed"],
)
def test_idx_that_is_damaged_is_a_data_error(tmp_path: Path, name: str, content: bytes) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", np.stack([GREY, GREY]))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged or cut off|is not an IDX file"):
        open_data(str(tmp_path))


# CSV manifests


def write_csv(folder: Path, text: str, encoding: str = "utf-8") -> str:
    (folder / "list.csv").write_text(text, encoding=encoding)
    return str(folder / "list.csv")


def test_csv_lists_relative_and_absolute_paths_with_further_columns(tmp_path: Path) -> None:
    write_picture(tmp_path / "pictures" / "a.png")
    absolute = write_picture(tmp_path / "elsewhere" / "b.png")
    rows = (
        "taken,Label,Path,split",
        "24,cat,pictures/a.png,",
        f"25, dog ,{absolute},val",
        "",
        r",dog,.\pictures\..\c.png,train",
    )
    write_picture(tmp_path / "c.png")
    dataset = open_data(write_csv(tmp_path, "\n".join(rows), "utf-8-sig"))
    assert dataset.origin == "list.csv"
    assert [(picture.id, picture.label, picture.split) for picture in dataset.pictures] == [
        ("pictures/a.png", "cat", None),
        (absolute.as_posix(), "dog", "validation"),
        ("pictures/../c.png", "dog", "train"),
    ]
    assert all(picture.encoded() == absolute.read_bytes() for picture in dataset.pictures)


def test_csv_takes_paths_from_the_home_of_whoever_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_classes(tmp_path / "home", "x")
    write_classes(tmp_path, "y")
    dataset = open_data(write_csv(tmp_path, "path,label\n~/x/a.png,x\ny/a.png,y\n"))
    assert ids(dataset) == ["~/x/a.png", "y/a.png"]
    assert all(picture.encoded() for picture in dataset.pictures)


def test_csv_without_a_split_column_marks_nothing(tmp_path: Path) -> None:
    write_classes(tmp_path, "x", "y")
    dataset = open_data(write_csv(tmp_path, "path,label\nx/a.png,x\ny/a.png,y\n"))
    assert {picture.split for picture in dataset.pictures} == {None}


def test_csv_finds_files_whose_names_are_decomposed_unicode(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "ä")
    write_classes(tmp_path, decomposed, "b")
    dataset = open_data(write_csv(tmp_path, f"path,label\n{decomposed}/a.png,{decomposed}\nb/a.png,b\n"))
    assert dataset.labels == ("b", "ä")
    assert ids(dataset) == ["ä/a.png", "b/a.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with ''"),
        ("file,label\n", "begins with 'file,label'; needed is a header with the columns path and label"),
        ("path;label\n", "separated by commas"),
        ("path,label\na.png,a\nb.png,b\nx/a.png,x\n", r"lists 2 of 3 files that are not there, the first a\.png"),
        ("path,label,split\nx/a.png,x,train\nx/a.png,x,dev\n", r"list\.csv, line 3: 'dev' is not a split; known are"),
        ("path,label\nx/a.png,\n", "line 2: the label is empty"),
        ("path,label\n,x\n", "line 2: the path is empty"),
        ("path,label\nx/a.png\n", "line 2: the label is empty"),
        ("path,label\nx/a.png,x\nx/a.png,y\n", r"lists x/a\.png twice"),
        ("path,label\nx/a.png,x\n", r"holds one class \('x'\)"),
        ("path,label\n", "holds no pictures"),
        ('path,label\n"x/a.png,x\n', "cannot be read as CSV"),
        (
            "path,label,split\nx/a.png,x,train\ny/a.png,y,test\n",
            "no training pictures of class 'y'",
        ),
    ],
)
def test_csv_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    write_classes(tmp_path, "x", "y")
    with pytest.raises(DataError, match=message):
        open_data(write_csv(tmp_path, text))


def test_csv_in_another_encoding_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not UTF-8 text"):
        open_data(write_csv(tmp_path, "path,label\nä.png,ä\n", "latin-1"))


# Names


def test_digits_need_no_network() -> None:
    dataset = open_data("digits")
    assert dataset.origin == "digits"
    assert dataset.labels == tuple("0123456789")
    assert len(dataset.pictures) == 1797
    assert {picture.split for picture in dataset.pictures} == {None}
    images = np.stack([picture.content for picture in dataset.pictures if isinstance(picture.content, np.ndarray)])
    assert images.shape == (1797, 8, 8)
    assert set(np.unique(images)) == {round(level * 255 / 16) for level in range(17)}


def test_names_of_keras_keep_its_splits_and_get_real_class_names() -> None:
    x, y = np.stack([RGB, RGB]), np.array([[9], [0]], np.uint8)
    pictures = named.read("cifar10", load=lambda name: ((x, y), (x, y)))
    assert [(picture.id, picture.label, picture.split) for picture in pictures] == [
        ("train/00000", "truck", "train"),
        ("train/00001", "airplane", "train"),
        ("test/00000", "truck", "test"),
        ("test/00001", "airplane", "test"),
    ]
    labels = np.arange(10, dtype=np.uint8)
    fashion = named.read("fashion_mnist", load=lambda name: ((np.stack([GREY] * 10), labels), (x, y)))
    assert [picture.label for picture in fashion[7:10]] == ["Sneaker", "Bag", "Ankle boot"]
    assert [picture.label for picture in named.read("mnist", load=lambda name: ((x, y), (x, y)))][:2] == ["9", "0"]


def test_name_that_cannot_be_downloaded_asks_for_a_path() -> None:
    def load(name: str) -> named.Arrays:
        raise Exception(f"URL fetch failure on {name}: no network")  # noqa: TRY002 - what Keras raises

    with pytest.raises(
        DataError, match=r"'mnist' could not be downloaded \(URL fetch .*\); give --data a path instead"
    ):
        named.read("mnist", load=load)


def test_existing_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_classes(tmp_path, "digits/cats", "digits/dogs").parent)
    monkeypatch.chdir(tmp_path)
    assert open_data("digits").labels == ("cats", "dogs")


@pytest.mark.parametrize("data", ["no/such/folder", ""])
def test_path_that_is_not_there_is_named_with_the_known_names(data: str) -> None:
    with pytest.raises(DataError, match=f"no file or folder '{data}'.*digits, mnist, fashion_mnist, cifar10, cifar100"):
        open_data(data)


def test_file_of_another_kind_is_told_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "pictures.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"name a folder with one sub-folder per class.*unpack an archive first"):
        open_data(str(tmp_path / "pictures.rar"))


def test_name_that_no_system_takes_is_a_data_error() -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        open_data("a" * 10_000)
