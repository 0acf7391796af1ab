"""Pictures are decoded once, and what an earlier run kept is served where it is right, and only there."""

import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

import cv2
import numpy as np
import pytest

from app.contract.preprocessing import Image, PreprocessingSpec, preprocess
from training.data import segment, tensor_cache, tensors
from training.data.dataset import Picture
from training.data.tensor_cache import TensorCache
from training.data.tensors import Tensors, load_tensors
from training.errors import DataError, OptionError

SPEC = PreprocessingSpec(height=6, width=5, colour="rgb")
ROW_BYTES = 6 * 5 * 3
IN_A_FILE = 0
"""The largest array to hold in memory: none."""

MakePictures = Callable[..., list[Picture]]


def write(file: Path, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), np.uint8)
    file.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def picture(file: Path) -> Picture:
    return Picture(file.name, "ab"[int(file.stem) % 2], None, file)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    folder = tmp_path / "data"
    folder.mkdir()
    files = [folder / f"{number:03}.png" for number in range(70)]
    for number, file in enumerate(files):
        write(file, number)
    return [picture(file) for file in files]


class Run:
    """Loads pictures with a cache, counts what is decoded, and checks that all is what decoding gives."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.decoded = 0
        self.said: list[str] = []

        def counted(data: bytes, spec: PreprocessingSpec) -> Image:
            self.decoded += 1
            return preprocess(data, spec)

        monkeypatch.setattr(tensors, "preprocess", counted)

    def __call__(
        self,
        pictures: list[Picture],
        spec: PreprocessingSpec = SPEC,
        *,
        in_memory_bytes: int | None = None,
        keeps: bool = True,
        skip: bool = False,
    ) -> Tensors:
        self.decoded = 0
        cache = TensorCache(self.folder, keeps=keeps, in_memory_bytes=in_memory_bytes, say=self.said.append)
        loaded = load_tensors(pictures, spec, ("a", "b"), on_bad_image="skip" if skip else "fail", cache=cache)
        for image, shown in zip(loaded.images, loaded.pictures, strict=True):
            np.testing.assert_array_equal(image, preprocess(shown.encoded(), spec))
        return loaded

    def segments(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path / "cache", monkeypatch)


@pytest.fixture(params=[None, IN_A_FILE], ids=["in memory", "in a file"])
def in_memory_bytes(request: pytest.FixtureRequest) -> int | None:
    most: int | None = request.param
    return most


def test_a_second_run_decodes_nothing(run: Run, pictures: list[Picture], in_memory_bytes: int | None) -> None:
    run(pictures, in_memory_bytes=in_memory_bytes)
    assert run.decoded == 70
    run(pictures, in_memory_bytes=in_memory_bytes)
    assert run.decoded == 0
    assert len(run.segments()) == 1
    assert run.said == []


def test_a_changed_file_is_decoded_again_even_where_size_and_time_stay(
    run: Run, pictures: list[Picture], in_memory_bytes: int | None
) -> None:
    run(pictures, in_memory_bytes=in_memory_bytes)
    file = pictures[3].content
    assert isinstance(file, Path)
    before = file.stat()
    changed = bytearray(file.read_bytes())
    other = cv2.imencode(".bmp", np.zeros((8, 9, 3), np.uint8))[1].tobytes()
    file.write_bytes((other + bytes(len(changed)))[: len(changed)])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    loaded = run(pictures, in_memory_bytes=in_memory_bytes)
    assert run.decoded == 1
    assert not loaded.images[3].any()


@pytest.mark.parametrize("change", [{"height": 5}, {"colour": "grey"}, {"resize": "pad"}, {"background": (1, 2, 3)}])
def test_another_spec_decodes_anew(run: Run, pictures: list[Picture], change: dict[str, object]) -> None:
    run(pictures)
    run(pictures, SPEC.model_copy(update=change))
    assert run.decoded == 70


def test_another_build_of_the_decoder_decodes_anew(
    run: Run, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pictures)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "another")
    run(pictures)
    assert run.decoded == 70


def test_renamed_files_in_another_order_and_split_are_found(
    run: Run, pictures: list[Picture], tmp_path: Path, in_memory_bytes: int | None
) -> None:
    run(pictures, in_memory_bytes=in_memory_bytes)
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = [picture(file) for file in sorted((tmp_path / "moved").iterdir(), reverse=True)]
    run(moved[:40], in_memory_bytes=in_memory_bytes)
    assert run.decoded == 0
    run(moved[40:], in_memory_bytes=in_memory_bytes)
    assert run.decoded == 0


def test_a_new_picture_alone_is_decoded(
    run: Run, pictures: list[Picture], tmp_path: Path, in_memory_bytes: int | None
) -> None:
    run(pictures, in_memory_bytes=in_memory_bytes)
    write(tmp_path / "data" / "070.png", 70)
    more = [*pictures, picture(tmp_path / "data" / "070.png")]
    run(more, in_memory_bytes=in_memory_bytes)
    assert run.decoded == 1
    run(more, in_memory_bytes=in_memory_bytes)
    assert run.decoded == 0


def test_bad_pictures_are_left_out_of_what_is_kept(
    run: Run, pictures: list[Picture], in_memory_bytes: int | None
) -> None:
    for place in (0, 33, 69):
        file = pictures[place].content
        assert isinstance(file, Path)
        file.write_bytes(b"no picture")
    for decoded in (70, 3):
        loaded = run(pictures, in_memory_bytes=in_memory_bytes, skip=True)
        assert run.decoded == decoded
        assert len(loaded.images) == 67
        assert [bad.id for bad in loaded.skipped] == ["000.png", "033.png", "069.png"]
    with pytest.raises(DataError, match="3 of 70 pictures cannot be used"):
        run(pictures, in_memory_bytes=in_memory_bytes)
    assert all(not path.name.startswith(".") for path in run.segments())


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a pixel": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a digest": lambda data: data[: 70 * ROW_BYTES] + bytes([data[70 * ROW_BYTES] ^ 1]) + data[70 * ROW_BYTES + 1 :],
    "a checksum": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut": lambda data: data[:-5],
    "cut by a row": lambda data: data[: -(ROW_BYTES + segment.DIGEST_BYTES + 4)],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "something else": lambda data: b"<html>" * 100,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_never_served_and_is_mended(
    run: Run, pictures: list[Picture], in_memory_bytes: int | None, damage: Callable[[bytes], bytes]
) -> None:
    run(pictures, in_memory_bytes=in_memory_bytes)
    (kept,) = run.segments()
    kept.write_bytes(damage(kept.read_bytes()))
    run(pictures, in_memory_bytes=in_memory_bytes)
    assert run.decoded > 0
    run(pictures, in_memory_bytes=in_memory_bytes)
    assert run.decoded == 0


def test_an_array_that_memory_has_no_room_for_is_mapped_from_its_file(run: Run, pictures: list[Picture]) -> None:
    for _ in range(2):
        loaded = run(pictures, in_memory_bytes=70 * ROW_BYTES - 1)
        assert isinstance(loaded.images, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            loaded.images[0] = 0
    assert not isinstance(run(pictures, in_memory_bytes=70 * ROW_BYTES).images, np.memmap)


def test_without_the_cache_nothing_is_read_or_left(
    run: Run, pictures: list[Picture], in_memory_bytes: int | None
) -> None:
    for _ in range(2):
        run(pictures, in_memory_bytes=in_memory_bytes, keeps=False)
        assert run.decoded == 70
    assert run.segments() == []


def test_a_user_without_a_home_trains_all_the_same(
    pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    loaded = load_tensors(
        pictures, SPEC, ("a", "b"), on_bad_image="fail", cache=TensorCache(None, in_memory_bytes=IN_A_FILE)
    )
    assert isinstance(loaded.images, np.memmap)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_full_disk_costs_the_cache_and_one_line(
    run: Run, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(segment, "_take_room", full)
    cache = TensorCache(run.folder, say=run.said.append)
    for part in (pictures[:50], pictures[50:]):
        loaded = load_tensors(part, SPEC, ("a", "b"), on_bad_image="fail", cache=cache)
        assert len(loaded.images) == len(part)
    assert run.said == [f"no decoded pictures are kept in {run.folder} for later runs: the disk is full"]
    assert run.segments() == []


def test_a_full_disk_and_too_little_memory_are_an_error_that_says_what_to_do(
    run: Run, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(segment, "_take_room", full)
    with pytest.raises(OptionError, match=r"70 pictures of 5x6 pixels fit neither in .* choose a smaller --size"):
        run(pictures, in_memory_bytes=IN_A_FILE)
    assert run.segments() == []


def test_room_is_taken_where_the_system_has_no_call_for_it(
    run: Run, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    run(pictures, in_memory_bytes=IN_A_FILE)
    run(pictures, in_memory_bytes=IN_A_FILE)
    assert run.decoded == 0


def test_a_folder_that_cannot_be_written_costs_the_cache_and_one_line(run: Run, pictures: list[Picture]) -> None:
    run.folder.write_text("a file")
    run(pictures)
    assert run.decoded == 70
    assert len(run.said) == 1


def test_what_went_unused_longest_makes_room(
    run: Run, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_cache, "_MOST_BYTES", 45 * (ROW_BYTES + 20))
    run(pictures[:20])
    run(pictures[20:40])
    for age, path in enumerate(run.segments()):
        os.utime(path, (age, age))
    run(pictures[:20])
    assert run.decoded == 0
    run(pictures[40:60])
    run(pictures[:20])
    assert run.decoded == 0
    run(pictures[20:40])
    assert run.decoded == 20
    assert len(run.segments()) == 2


def test_what_is_larger_than_the_cache_may_be_is_not_kept_and_removes_nothing(
    run: Run, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch, in_memory_bytes: int | None
) -> None:
    run(pictures[:20])
    monkeypatch.setattr(tensor_cache, "_MOST_BYTES", 30 * (ROW_BYTES + 20))
    loaded = run(pictures, in_memory_bytes=in_memory_bytes)
    assert len(loaded.images) == 70
    assert len(run.segments()) == 1
    (line,) = run.said
    assert "more than the cache is allowed to" in line


def test_what_a_killed_run_left_is_removed_after_a_day(run: Run, pictures: list[Picture]) -> None:
    run(pictures[:10])
    (kept,) = run.segments()
    young, old = kept.with_name(".young.rows"), kept.with_name(".old.rows")
    for path, age in ((young, 3600), (old, 25 * 3600)):
        path.write_bytes(b"unfinished")
        os.utime(path, (time.time() - age, time.time() - age))
    run(pictures)
    assert young.exists()
    assert not old.exists()


_LOAD = """
import sys
from pathlib import Path
import numpy as np
from app.contract.preprocessing import PreprocessingSpec, preprocess
from training.data.dataset import Picture
from training.data.tensor_cache import TensorCache
from training.data.tensors import load_tensors

data, folder, most = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
pictures = [Picture(file.name, "a", None, file) for file in sorted(data.iterdir())]
spec = PreprocessingSpec(height=6, width=5, colour="rgb")
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    cache = TensorCache(folder, in_memory_bytes=most, say=sys.exit)
    images = load_tensors(pictures, spec, ("a",), on_bad_image="fail", cache=cache).images
    for image, picture in zip(images, pictures, strict=True):
        np.testing.assert_array_equal(image, preprocess(picture.encoded(), spec))
    if sys.argv[4] == "removes":
        for path in folder.rglob("[!.]*.rows"):
            path.unlink(missing_ok=True)
"""


@pytest.mark.parametrize("most", [1 << 30, IN_A_FILE], ids=["in memory", "in a file"])
def test_runs_at_once_and_one_that_removes_the_cache_do_not_disturb_each_other(
    run: Run, pictures: list[Picture], repository: Path, tmp_path: Path, most: int
) -> None:
    arguments = [sys.executable, "-c", _LOAD, str(tmp_path / "data"), str(run.folder), str(most)]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen([*arguments, role], cwd=repository, text=True, stdin=PIPE, stdout=PIPE)
            )
            for role in ("loads", "loads", "removes")
        ]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    assert all(not path.name.startswith(".") for path in run.segments())
