"""AVIF and HEIC: colours, alpha, ten bits and each turn, of tests/data/heif; see the README there."""

import contextlib
import io
import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from app.contract.formats.heif import MAX_ITEMS, check_heif
from app.contract.header import read_header
from app.contract.preprocessing import PreprocessingSpec, decode
from app.errors import ImageError, UndecodableImage, UnsupportedLayout

SPEC = PreprocessingSpec(height=8, width=8, colour="rgb")
FOLDER = Path(__file__).parents[2] / "data" / "heif"
LOSS = 4
"""Grey levels by which a lossy picture may differ."""


def drawn() -> NDArray[np.int64]:
    """Return what the files show: (48, 64, 3)."""
    y, x = np.mgrid[:48, :64]
    rgb = np.stack([x * 4, y * 5 % 256, np.full_like(x, 60)], axis=2)
    rgb[:16, :16], rgb[32:, :16] = (250, 20, 20), (20, 250, 20)
    return rgb


def read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def assert_shows(name: str, expected: NDArray[np.int64]) -> None:
    found = decode(read(name), SPEC)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= LOSS


@pytest.mark.parametrize("name", ["colours.heic", "ten_bits.heic", "colours.avif"])
def test_colours_are_those_that_were_drawn(name: str) -> None:
    assert_shows(name, drawn())


@pytest.mark.parametrize("name", ["alpha.heic", "alpha.avif"])
def test_what_is_transparent_shows_the_background(name: str) -> None:
    expected = drawn()
    expected[:, :32] = 255
    assert_shows(name, expected)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_heic_is_turned_as_it_says(quarter_turns: int) -> None:
    assert_shows(f"turned_{quarter_turns}.heic", np.rot90(drawn(), quarter_turns))


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_avif_is_turned_as_it_says(orientation: int) -> None:
    upright = {2: np.fliplr(drawn()), 3: np.rot90(drawn(), 2), 6: np.rot90(drawn(), -1)}
    assert_shows(f"orientation_{orientation}.avif", upright[orientation])


def test_pixels_do_not_change_after_they_were_read() -> None:
    first = [decode(read(name), SPEC) for name in ("colours.heic", "alpha.heic", "turned_2.heic")]
    again = [decode(read(name), SPEC) for name in ("colours.heic", "alpha.heic", "turned_2.heic")]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("name", "size"), [("colours.avif", (64, 48)), ("colours.heic", (64, 64))])
def test_the_size_is_read_without_decoding(name: str, size: tuple[int, int]) -> None:
    """HEVC has pictures of at least 64 lines, of which a crop shows 48."""
    header = read_header(read(name))
    assert (header.format, header.width, header.height) == (name.rpartition(".")[2], *size)


@pytest.mark.parametrize("name", ["colours.heic", "colours.avif"])
def test_a_file_that_is_cut_off_is_damaged(name: str) -> None:
    data = read(name)
    for end in range(16, len(data) - 40, 13):
        with pytest.raises(UndecodableImage, match=r"cut off inside its header|damaged or cut off"):
            decode(data[:end], SPEC)


@pytest.mark.parametrize("name", ["colours.heic", "colours.avif"])
def test_boxes_that_claim_what_is_not_there_are_damage(name: str) -> None:
    data = read(name)
    at = data.index(b"meta") - 4
    for size in (0xFFFFFFFF, 9, 12, 20):
        with pytest.raises(UndecodableImage):
            decode(data[:at] + struct.pack(">I", size) + data[at + 4 :], SPEC)


@pytest.mark.parametrize("name", ["colours.heic", "colours.avif"])
def test_any_byte_may_be_wrong(name: str) -> None:
    """It gives a picture or an ImageError, never another error."""
    data = read(name)
    for at in range(0, len(data), 3):
        spoiled = data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :]
        try:
            assert decode(spoiled, SPEC).ndim in (2, 3)
        except Exception as exc:  # noqa: BLE001 - each is looked at
            assert type(exc).__module__ == "app.errors", (at, exc)  # noqa: PT017


def box(kind: bytes, *content: bytes) -> bytes:
    whole = b"".join(content)
    return struct.pack(">I4s", len(whole) + 8, kind) + whole


def full(kind: bytes, *content: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *content)


def tile(side: int = 64) -> tuple[bytes, bytes]:
    """Return an AV1 picture of one colour, and the box that configures its decoder."""
    written = io.BytesIO()
    Pillow.new("RGB", (side, side), (200, 40, 90)).save(written, "AVIF", quality=90)
    data = written.getvalue()
    at, mdat = data.index(b"av1C") - 4, data.index(b"mdat") + 4
    return data[mdat:], data[at : at + int.from_bytes(data[at : at + 4], "big")]


def grid(
    rows: int,
    columns: int,
    *,
    side: int = 64,
    declared_side: int | None = None,
    size: tuple[int, int] | None = None,
    own_size: tuple[int, int] | None = None,
    parts: Sequence[int] | None = None,
    kinds: bytes = b"av01",
    extents: int = 1,
    content: bytes | None = None,
    alpha: bool = False,
) -> bytes:
    """Return an AVIF of tiles, all of which are the same bytes. Item 1 is the grid, the others its tiles, or alpha."""
    coded, configuration = tile(side)
    coded = content or coded
    items = list(range(2, rows * columns + 2))
    parts = items if parts is None else parts
    width, height = size or (columns * side, rows * side)
    own_width, own_height = own_size or (width, height)
    layout = struct.pack(">BBBBII", 0, 1, (rows - 1) & 255, (columns - 1) & 255, own_width, own_height)
    side = declared_side or side
    properties = box(
        b"ipco",
        full(b"ispe", struct.pack(">II", width, height)),
        full(b"ispe", struct.pack(">II", side, side)),
        full(b"pixi", b"\3\x08\x08\x08"),
        configuration,
    )
    owns = [struct.pack(">HBBB", 1, 2, 1, 3), *(struct.pack(">HBBBB", item, 3, 2, 3, 0x84) for item in items)]
    references = box(b"dimg", struct.pack(f">HH{len(parts)}H", 1, len(parts), *parts))
    if alpha:
        references = box(b"auxl", struct.pack(">HHH", 2, 1, 1))
    infos = [(1, b"av01" if alpha else b"grid"), *((item, kinds) for item in items)]

    def meta(begin: int) -> bytes:
        places = [struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(layout))]
        one = struct.pack(">II", begin, len(coded))
        places += [struct.pack(">HHHH", item, 0, 0, extents) + one * extents for item in items]
        return full(
            b"meta",
            full(b"hdlr", bytes(4), b"pict", bytes(13)),
            full(b"pitm", struct.pack(">H", 1)),
            full(
                b"iinf",
                struct.pack(">H", len(infos)),
                *(full(b"infe", struct.pack(">HH", item, 0), kind, b"\0", version=2) for item, kind in infos),
            ),
            full(b"iref", references),
            box(b"iprp", properties, full(b"ipma", struct.pack(">I", len(owns)), *owns)),
            box(b"idat", layout),
            full(b"iloc", struct.pack(">HH", 0x4400, len(places)), *places, version=1),
        )

    kind = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    return kind + meta(len(kind) + len(meta(0)) + 8) + box(b"mdat", coded)


def test_a_grid_of_tiles_is_decoded() -> None:
    for rows, columns, size in ((2, 3, None), (2, 2, (70, 66))):
        found = decode(grid(rows, columns, size=size), SPEC)
        width, height = size or (columns * 64, rows * 64)
        assert found.shape == (height, width, 3)
        assert np.abs(found - np.array((200, 40, 90))).max() <= LOSS


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is rejected in this test is rejected before any decoder sees it."""
    monkeypatch.setattr("app.contract.formats.heif.open_with_pillow", None)
    monkeypatch.setattr("app.contract.formats.heif.pi_heif", None)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (grid(2, 2, declared_side=4000), "tiles far larger than its picture"),
        (grid(2, 2, size=(64, 64), parts=[2] * 4000), "tiles far larger than its picture"),
        (grid(2, 2, parts=[2] * (MAX_ITEMS + 1)), "more than 4,096 tiles"),
        (grid(2, 2, own_size=(30_000, 30_000)), "a grid of another size than it declares"),
        (grid(2, 2, parts=[2]), "a grid of another size than it declares"),
        (grid(2, 2, kinds=b"grid"), "tiles that are made of tiles"),
        (grid(2, 2, extents=3000), "items in more than 8,192 pieces"),
        (grid(4, 4, extents=200, content=bytes(10_000)), "share the same bytes over and over"),
        (grid(2, 2, declared_side=8000, alpha=True), "an alpha plane far larger than its picture"),
    ],
)
def test_items_that_cost_more_than_the_picture_are_rejected(data: bytes, sentence: str) -> None:
    with pytest.raises(UndecodableImage, match=sentence):
        decode(data, SPEC)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("name", [b"iinf", b"iloc", b"ipma"])
def test_tables_that_cannot_be_read_are_damage(name: bytes) -> None:
    data = grid(2, 2)
    with pytest.raises(UndecodableImage, match=r"damaged or cut off|cut off inside"):
        decode(data.replace(name, b"free"), SPEC)


def avif(width: int = 16, height: int = 16, mode: str = "RGB", **options: object) -> bytes:
    written = io.BytesIO()
    Pillow.new(mode, (width, height)).save(written, "AVIF", speed=10, **options)
    return written.getvalue()


def declaring(data: bytes, width: int, height: int) -> bytes:
    """Return a file each of whose `ispe` boxes says this size, whatever is coded."""
    at = data.find(b"ispe")
    while at >= 0:
        data = data[: at + 8] + struct.pack(">II", width, height) + data[at + 16 :]
        at = data.find(b"ispe", at + 4)
    return data


def units(*kinds_and_contents: tuple[int, bytes]) -> bytes:
    """Return open bitstream units of AV1, each of less than 128 bytes."""
    return b"".join(bytes([kind << 3 | 2, len(content)]) + content for kind, content in kinds_and_contents)


def bits(*values_and_widths: tuple[int, int]) -> bytes:
    text = "".join(f"{value:0{width}b}" for value, width in values_and_widths)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8))


def sequence(side: int, *, still: bool = True) -> bytes:
    """Return an AV1 sequence header, the short one of a still picture or the long one without any option."""
    points = [(0, 5)] if still else [(0, 1), (0, 1), (0, 5), (0, 17)]
    tools = [(0, 1), (0, 7), (0, 1), (0, 1), (0, 1), (0, 3)]
    return bits(
        (0, 3), (still, 1), (still, 1), *points, (15, 4), (15, 4), (side - 1, 16), (side - 1, 16), *tools, (0, 40)
    )  # fmt: skip


def with_set(heic: bytes, side: int) -> bytes:
    """Return a HEIC whose sequence parameter set says another size than its boxes."""
    at = heic.index(b"\x42\x01\x01")
    profile = b"\x42\x01\x01" + bits((0, 96))
    size = f"{side + 1:b}"
    golomb = (int(size, 2), 2 * len(size) - 1)
    own = profile + bits((1, 1), (2, 3), golomb, golomb)
    length = int.from_bytes(heic[at - 2 : at])
    assert len(own) <= length
    return heic[:at] + own.ljust(length, b"\1") + heic[at + length :]


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(declaring(avif(2000, 1500), 64, 64), id="colours"),
        pytest.param(declaring(avif(2000, 1500, "RGBA"), 64, 64), id="alpha"),
        pytest.param(declaring(avif(2000, 1500, "L"), 64, 64), id="grey"),
        pytest.param(declaring(avif(65, 64), 64, 64), id="one more column than blocks of 64"),
        pytest.param(declaring(avif(64, 129), 64, 128), id="one more row than blocks of 64"),
        pytest.param(grid(2, 2, side=256, declared_side=64), id="tiles"),
        pytest.param(grid(1, 2, content=tile()[0] + units((1, sequence(20_000)))), id="later sequence header"),
        pytest.param(grid(1, 2, content=tile()[0] + units((1, sequence(20_000, still=False)))), id="long header"),
        pytest.param(with_set(read("colours.heic"), 16_000), id="hevc"),
    ],
)
def test_a_coded_picture_that_is_larger_than_it_says_is_rejected(data: bytes) -> None:
    with pytest.raises(UndecodableImage, match="has a coded picture that is larger than it says"):
        decode(data, SPEC)


@pytest.mark.usefixtures("no_decoder")
def test_parameter_sets_between_the_slices_of_hevc_are_read_too() -> None:
    data = read("colours.heic")
    spoiled = with_set(data, 16_000)
    at = spoiled.index(b"\x42\x01\x01")
    unit = spoiled[at : at + int.from_bytes(spoiled[at - 2 : at])]
    begin = data.index(b"mdat") + 4
    left = int.from_bytes(data[begin : begin + 4]) - len(unit) - 4
    inside = struct.pack(">I", len(unit)) + unit + struct.pack(">I", left) + data[begin + 4 : begin + 4 + left]
    with pytest.raises(UndecodableImage, match="has a coded picture that is larger than it says"):
        decode(data[:begin] + inside + data[begin + len(inside) :], SPEC)


@pytest.mark.usefixtures("no_decoder")
def test_a_frame_of_another_size_than_its_sequence_is_rejected_by_name() -> None:
    """The frame's own size may be 65,536 by 65,536, whatever the sequence says."""
    own_size = bits((0, 1), (0, 2), (1, 1), (0, 1), (1, 1), (0, 3), (65_535, 16), (65_535, 16))
    content = units((1, sequence(64, still=False)), (6, own_size))
    with pytest.raises(UnsupportedLayout, match="An AVIF with frames of different sizes is not supported"):
        decode(grid(1, 2, content=content), SPEC)


@pytest.mark.usefixtures("no_decoder")
def test_very_many_pictures_in_place_of_one_are_rejected() -> None:
    content = units((1, sequence(64)), *[(6, b"\0")] * 4000)
    with pytest.raises(UndecodableImage, match="very many pictures instead of one"):
        decode(grid(1, 2, content=content), SPEC)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("content", [units((2, b"")) * 40_000, units((6, b"\0")), b"\x0a\x7f", b"\x0a" + b"\xff" * 9])
def test_coded_data_that_cannot_be_read_is_damage(content: bytes) -> None:
    with pytest.raises(UndecodableImage, match="damaged or cut off"):
        decode(grid(1, 2, content=content), SPEC)


@pytest.mark.parametrize("side", [1, 3, 63, 64, 65, 127, 301])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_ordinary_pictures_are_coded_in_the_size_that_they_say(side: int, mode: str, subsampling: str) -> None:
    assert decode(avif(side, side + 1, mode, subsampling=subsampling), SPEC).shape[:2] == (side + 1, side)


@pytest.mark.parametrize("bits_a_sample", [8, 10, 12])
def test_pictures_of_any_depth_are_coded_in_the_size_that_they_say(bits_a_sample: int) -> None:
    written = cv2.imencode(
        ".avif",
        np.zeros((50, 70, 3), np.uint8 if bits_a_sample == 8 else np.uint16),
        [cv2.IMWRITE_AVIF_DEPTH, bits_a_sample],
    )[1].tobytes()
    assert decode(written, SPEC).shape == (50, 70, 3)


@pytest.mark.parametrize("brand", [b"avis", b"mif1", b"msf1"])
def test_a_sequence_shows_its_primary_picture_and_not_its_unchecked_track(brand: bytes) -> None:
    """libavif would show the first frame of the track, whose boxes and data may say any size."""
    first, second = (Pillow.new("RGB", (64, 48), colour) for colour in ((250, 0, 0), (0, 0, 250)))
    written = io.BytesIO()
    first.save(written, "AVIF", save_all=True, append_images=[second])
    data = written.getvalue()
    data = data[:8] + brand + data[12:]
    track = data.index(b"tkhd")
    end = track - 4 + int.from_bytes(data[track - 4 : track])
    spoiled = data[: end - 8] + struct.pack(">II", 9000 << 16, 9000 << 16) + data[end:]
    for each in (data, spoiled):
        found = decode(each, SPEC)
        assert found.shape == (48, 64, 3)
        assert np.abs(found - np.array((250, 0, 0))).max() <= LOSS


@pytest.mark.parametrize("name", ["colours.heic", "alpha.heic", "colours.avif", "alpha.avif"])
def test_spoiled_files_are_a_picture_or_an_image_error_before_they_are_decoded(name: str) -> None:
    data, draw = read(name), np.random.default_rng(7)
    for _ in range(500):
        spoiled = bytearray(data)
        for at in draw.integers(0, len(data), draw.integers(1, 8)):
            spoiled[at] = draw.integers(256)
        with contextlib.suppress(ImageError):
            check_heif(bytes(spoiled), "AVIF")
