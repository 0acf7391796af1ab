"""Folders in .zip and .tar files: read where they lie, within bounds, and by the rules of folders."""

import contextlib
import io
import os
import resource
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.contract import archives
from training.data.dataset import Dataset
from training.data.sources import archive, open_data
from training.errors import DataError

KINDS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MODES = {".tar": "w", ".bz2": "w:bz2", ".xz": "w:xz"}
Files = dict[str, bytes | None]


def png(seed: int) -> bytes:
    return cv2.imencode(".png", np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8))[1].tobytes()


def classes(prefix: str = "") -> Files:
    return {f"{prefix}{label}/{number}.png": png(number) for label in ("cats", "dogs") for number in range(3)}


def pack(path: Path, files: Files) -> Path:
    """Write an archive of files, and of folders if the content is None."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
            for name, content in files.items():
                if content is None:
                    written.mkdir(name)
                else:
                    written.writestr(name, content)
        return path
    with tarfile.open(path, MODES.get(path.suffix, "w:gz")) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            tar.addfile(entry, io.BytesIO(content or b""))
    return path


@pytest.fixture(params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a path for an archive of every kind in turn."""
    return tmp_path / f"photos{request.param}"


def contents(dataset: Dataset) -> dict[str, tuple[str, str | None, bytes]]:
    return {each.id: (each.label, each.split, each.encoded()) for each in dataset.pictures}


def test_archive_gives_what_its_folder_gives(path: Path, tmp_path: Path) -> None:
    files = {**classes("photos/train/"), **classes("photos/test/"), "photos/train/cats/deep/er/x": png(9)}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content or b"")
    packed = open_data(str(pack(path, files)))
    assert packed.origin == path.name
    assert contents(packed) == contents(open_data(str(tmp_path / "photos")))
    assert len(packed.pictures) == 13


@pytest.mark.parametrize("prefix", ["", "photos/", "./", "a/b/c/"])
def test_the_folder_itself_may_be_packed_with_its_classes(path: Path, prefix: str) -> None:
    files = {**classes(prefix), "a/notes.txt": b"text"} if prefix.startswith("a") else classes(prefix)
    dataset = open_data(str(pack(path, files)))
    assert sorted(contents(dataset)) == sorted(classes())
    assert [name for name, _ in dataset.left_out] == (["a/notes.txt"] if prefix.startswith("a") else [])


def test_what_macos_adds_gives_no_phantom_pictures(path: Path) -> None:
    apple_double = b"\x00\x05\x16\x07" + bytes(80)
    extra: Files = {"__MACOSX/": None, "__MACOSX/cats/._0.png": apple_double, "cats/._1.png": apple_double}
    said: list[str] = []
    dataset = open_data(str(pack(path, {**classes(), **extra, "cats/.DS_Store": b"Bud1"})), say=said.append)
    assert sorted(contents(dataset)) == sorted(classes())
    assert said == []


def test_what_is_left_out_is_counted_as_of_folders(path: Path) -> None:
    said: list[str] = []
    open_data(str(pack(path, {**classes(), "cats/a.svg": b"<svg/>", "loose.png": png(1)})), say=said.append)
    assert said == ["2 files left out: 1 SVG, 1 picture outside of the class folders"]


def test_hidden_files_and_folders_are_counted_as_of_folders(path: Path, tmp_path: Path) -> None:
    files: Files = {"cats/.old/deep/a.png": png(1), "cats/.old/b.png": png(2), ".cache/": None, "dogs/.labels": b"dogs"}
    for name, content in (all_files := {**classes(), **files}).items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            (tmp_path / "data" / name).mkdir()
        else:
            (tmp_path / "data" / name).write_bytes(content)
    packed, folder = open_data(str(pack(path, all_files))), open_data(str(tmp_path / "data"))
    assert contents(packed) == contents(folder)
    assert sorted(packed.left_out) == sorted(folder.left_out) == [
        (".cache", "a hidden folder"),
        ("cats/.old", "a hidden folder"),
        ("dogs/.labels", "a hidden file"),
    ]  # fmt: skip


def test_empty_class_of_an_archive_is_named(path: Path) -> None:
    with pytest.raises(DataError, match=r"Class 'owls' of .*photos.* has no pictures \(it holds no files\)"):
        open_data(str(pack(path, {**classes(), "owls/": None})))


@pytest.mark.parametrize("name", ["../cats/a.png", "cats/../../a.png", "/etc/a.png", "cats\\..\\..\\a.png"])
def test_paths_that_lead_out_are_rejected(path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"photos\S* holds '.*a\.png', which leads out of it\. Pack the folder again"):
        open_data(str(pack(path, {**classes(), name: png(1)})))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_links_in_a_tar_are_rejected(tmp_path: Path, kind: bytes, suffix: str) -> None:
    path = pack(tmp_path / f"a{suffix}", classes())
    with tarfile.open(path, "w" if suffix == ".tar" else "w:gz") as tar:
        entry = tarfile.TarInfo("cats/link.png")
        entry.type, entry.linkname = kind, "cats/0.png"
        tar.addfile(entry)
    with pytest.raises(DataError, match=r"holds 'cats/link\.png', which is a link"):
        open_data(str(path))


def test_links_and_encrypted_files_in_a_zip_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("cats/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as written:
        written.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="which is a link"):
        open_data(str(path))
    data = bytearray(pack(path, classes()).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="which is encrypted"):
        open_data(str(path))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (archives.Bounds(entries=5), "holds more than 5 files"),
        (archives.Bounds(content=1000), "holds more than 1,000 bytes"),
    ],
)
def test_entries_and_bytes_are_bounded(path: Path, bounds: archives.Bounds, message: str) -> None:
    pack(path, classes())
    with pytest.raises(DataError, match=message):
        archive.read(path, bounds=bounds)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_compression_is_bounded(tmp_path: Path, suffix: str) -> None:
    path = pack(tmp_path / f"a{suffix}", {**classes(), "cats/bomb.bmp": bytes(8_000_000)})
    archive.read(path)
    with pytest.raises(DataError, match="is compressed more than 200 times"):
        archive.read(path, bounds=archives.Bounds(free=1_000_000))


def test_a_path_of_very_many_folders_is_read(path: Path) -> None:
    files = {**classes(), f"cats/{'a/' * 1500}x.png": png(9)}
    assert len(open_data(str(pack(path, files))).pictures) == 7
    with pytest.raises(DataError, match="whose path is too long"):
        open_data(str(pack(path, {**classes(), f"cats/{'a/' * 3000}x.png": png(9)})))


def test_a_tar_entry_of_negative_size_is_rejected(tmp_path: Path) -> None:
    entry = bytearray(tarfile.TarInfo("cats/a.png").tobuf())
    entry[124:136] = b"\xff" * 12
    entry[148:156] = b" " * 8
    entry[148:156] = b"%06o\0 " % sum(entry)
    (tmp_path / "a.tar").write_bytes(bytes(entry) + bytes(10240))
    with pytest.raises(DataError, match=r"a\.tar (holds 'cats/a\.png'|is damaged)"):
        open_data(str(tmp_path / "a.tar"))


def test_a_name_as_long_as_the_tar_is_not_read(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    (tmp_path / "a.tar").write_bytes(entry.tobuf() + bytes(4096))
    os.truncate(tmp_path / "a.tar", 2 << 30)
    with pytest.raises(DataError, match="a header is too long"):
        open_data(str(tmp_path / "a.tar"))


def test_a_compressed_tar_that_memory_cannot_hold_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "available_memory", lambda: 10_000)
    with pytest.raises(DataError, match=r"does not fit into this machine's memory\. Pack the folder as \.zip or \.tar"):
        open_data(str(pack(tmp_path / "a.tgz", classes())))


def test_an_xz_that_claims_a_window_of_gigabytes_takes_none(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar.xz", classes())
    data = bytearray(path.read_bytes())
    assert data[14:16] == b"\x21\x01"  # LZMA2, and one byte that says how large its window is
    data[16] = 40
    data[20:24] = zlib.crc32(data[12:20]).to_bytes(4, "little")
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(DataError):  # a system may refuse even to promise the memory
        open_data(str(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize(
    ("name", "begin", "kind"),
    [
        ("photos.7z", b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        ("photos.rar", b"Rar!\x1a\x07\x00", "a RAR archive"),
        ("photos.tar.zst", b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
        ("photos.gz", b"\x1f\x8b\x08", "a gzip archive"),
    ],
)
def test_an_archive_of_another_kind_is_named(tmp_path: Path, name: str, begin: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(begin + bytes(100))
    with pytest.raises(DataError, match=rf"{name} is {kind}, and no data that can be read: .*unpack an archive first"):
        open_data(str(tmp_path / name))


@pytest.mark.parametrize("size", [0, 10, 700])
def test_cut_off_archives_are_data_errors(path: Path, size: int) -> None:
    pack(path, classes())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"photos\S* (is damaged, cut off or of another format|has no class folders)"):
        open_data(str(path))


def test_damaged_bytes_never_raise_anything_else(path: Path) -> None:
    whole = pack(path, classes()).read_bytes()
    random = np.random.default_rng(3)
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(0, len(data), 4):
            data[place] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            for picture in open_data(str(path), tolerant=True).pictures:
                picture.encoded()
        except DataError:
            continue


def test_damaged_picture_of_a_zip_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", classes())
    with zipfile.ZipFile(path) as opened:
        start = opened.getinfo("cats/1.png").header_offset
    data = bytearray(path.read_bytes())
    data[start + 200 : start + 210] = bytes(10)
    path.write_bytes(data)
    first, second, third, *_ = open_data(str(path)).pictures
    assert first.encoded() == png(0)
    assert third.encoded() == png(2)
    with pytest.raises(DataError, match=r"cats/1\.png cannot be read: it is damaged within the archive"):
        second.encoded()


def test_names_that_macos_wrote_without_saying_their_encoding_are_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"Äpfel/a.png": png(1), "Birnen/a.png": png(2)})
    data = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + flags + 1] &= ~0x08
    path.write_bytes(data)
    assert open_data(str(path)).labels == ("Birnen", "Äpfel")


def test_many_threads_read_one_archive(path: Path) -> None:
    pictures = open_data(str(pack(path, classes()))).pictures
    expected = classes()
    wrong: list[str] = []

    def read() -> None:
        for _ in range(20):
            wrong.extend(each.id for each in pictures if each.encoded() != expected[each.id])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.fixture
def no_writing(tmp_path: Path) -> Iterator[None]:
    """Fail if anything is unpacked beside the archive."""
    before = set(tmp_path.rglob("*"))
    yield
    assert len(set(tmp_path.rglob("*")) - before) == 1


@pytest.mark.usefixtures("no_writing")
def test_nothing_is_unpacked(path: Path) -> None:
    assert len(contents(open_data(str(pack(path, classes()))))) == 6
