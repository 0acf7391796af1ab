"""What would cost a decoder out of proportion is refused before it, with a sentence that says how to save it."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from app.contract.header import read_header
from app.contract.preprocessing import PreprocessingSpec, preprocess
from app.contract.structure import MAX_SCANS, MAX_SEGMENTS, MAX_TILES, find_png_chunks, png_of_pixels
from app.errors import UndecodableImage
from tests.oddities import FIELDS, chunk, pillow, png, progressive_jpeg, segment, tiled, with_png_chunks

SPEC = PreprocessingSpec(height=8, width=8, colour="grey")


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused in this test is refused before any decoder sees it."""
    monkeypatch.delattr(cv2, "imdecode")
    monkeypatch.delattr(cv2, "imdecodeWithMetadata")


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("scans", [MAX_SCANS, 5_000])
def test_a_jpeg_of_too_many_scans_is_refused(scans: int) -> None:
    with pytest.raises(UndecodableImage, match=r"more than 64 scans, .* Save it as baseline JPEG"):
        preprocess(progressive_jpeg(16, 16, scans=scans), SPEC)


def test_a_jpeg_of_the_most_scans_is_decoded() -> None:
    assert preprocess(progressive_jpeg(16, 16, scans=MAX_SCANS - 1), SPEC).shape == SPEC.shape


def test_scans_are_counted_whatever_lies_between_them() -> None:
    """Fill, stray and restart bytes, and segments that look like the end of the picture or like scans."""
    between = segment(0xFE, b"\xff\xd9") + b"\xff\xff\xff" + segment(0xDD, b"\0\0") + b"stray" + b"\xff\xd0"
    scan = segment(0xDA, b"\x01\x01\x00\x01\x3f\x00") + b"\0\xff\x00\xff\xd0\0"
    head = progressive_jpeg(16, 16, scans=0)[:-2]
    with pytest.raises(UndecodableImage, match="scans"):
        preprocess(head + (between + scan) * MAX_SCANS + b"\xff\xd9", SPEC)
    few = head + segment(0xFE, b"\xff\xda" * 1000) + scan + b"\xff\xd9" + b"\xff\xda" * 1000
    assert preprocess(few, SPEC).shape == SPEC.shape


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("before_the_size", [True, False])
def test_a_jpeg_of_very_many_segments_is_refused(before_the_size: bool) -> None:
    many = b"\xff\xfe\x00\x02" * (MAX_SEGMENTS + 1)
    jpeg = progressive_jpeg(16, 16, scans=MAX_SCANS)
    scan = jpeg.index(b"\xff\xda")
    data = jpeg[:2] + many + jpeg[2:] if before_the_size else jpeg[:scan] + many + jpeg[scan:]
    with pytest.raises(UndecodableImage, match="more than 4,096 segments"):
        preprocess(data, SPEC)


@pytest.mark.usefixtures("no_decoder")
def test_a_jpeg_that_is_cut_off_is_damaged_whatever_follows() -> None:
    jpeg = pillow(kind="JPEG")
    for end in (len(jpeg) // 2, -2, -1):
        for behind in (b"", bytes(9), bytes(100 * len(jpeg)), b"<html>"):
            with pytest.raises(UndecodableImage, match="damaged or cut off"):
                preprocess(jpeg[:end] + behind, SPEC)


def test_what_follows_the_end_of_a_jpeg_is_left_alone() -> None:
    jpeg = pillow(kind="JPEG")
    for behind in (bytes(9), jpeg[: len(jpeg) // 2], b"\xff\xda" * 200):
        assert np.array_equal(preprocess(jpeg + behind, SPEC), preprocess(jpeg, SPEC))


def test_any_number_of_fill_bytes_is_one_step() -> None:
    jpeg = pillow(kind="JPEG")
    header = read_header(jpeg[:2] + b"\xff" * 100_000 + jpeg[2:])
    assert (header.height, header.width) == FIELDS.shape[:2]


@pytest.mark.parametrize(
    "data",
    [
        b"Comment\0\0" + zlib.compress(bytes(7_000_000), 9),
        b"Comment\0\1\0\0\0" + zlib.compress(bytes(7_000_000), 9),
    ],
    ids=["zTXt", "iTXt"],
)
def test_texts_and_profiles_of_a_png_never_reach_the_decoder(data: bytes) -> None:
    kind = b"iTXt" if b"\0\1" in data[:10] else b"zTXt"
    heavy = with_png_chunks(pillow(), *[chunk(kind, data)] * 1000)
    chunks = find_png_chunks(heavy)
    assert chunks is not None
    assert png_of_pixels(heavy, chunks) == pillow()


def test_a_png_of_its_pixels_alone_is_not_copied() -> None:
    data = pillow()
    assert png_of_pixels(data, find_png_chunks(data) or {}) is data


@pytest.mark.usefixtures("no_decoder")
def test_a_png_that_inflates_to_far_more_than_its_pixels_is_refused() -> None:
    heavy = png(28, 28, 8, 0, bytes(100_000_000))
    for data in (heavy, split_idat(heavy)):
        with pytest.raises(UndecodableImage, match="far more data than its pixels need"):
            preprocess(data, SPEC)


def split_idat(data: bytes, size: int = 8192) -> bytes:
    start = data.index(b"IDAT")
    (length,) = struct.unpack_from(">I", data, start - 4)
    pixels = data[start + 4 : start + 4 + length]
    pieces = [chunk(b"IDAT", pixels[at : at + size]) for at in range(0, length, size)]
    return data[: start - 4] + b"".join(pieces) + data[start + 8 + length :]


@pytest.mark.parametrize(("depth", "colour", "samples"), [(1, 0, 1), (4, 3, 1), (8, 2, 3), (16, 6, 4)])
@pytest.mark.parametrize("interlace", [0, 1])
def test_a_large_png_that_hardly_compresses_is_not_taken_for_one_that_inflates(
    depth: int, colour: int, samples: int, interlace: int
) -> None:
    random = np.random.default_rng(0)
    side = 900 if depth == 1 else 300
    sizes = [(side, side)]
    if interlace:
        passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        sizes = [(-(-(side - top) // down), -(-(side - left) // right)) for top, left, down, right in passes]
    rows = b"".join(
        b"\0" + random.bytes((width * depth * samples + 7) // 8) for height, width in sizes for _ in range(height)
    )
    palette = [chunk(b"PLTE", bytes(48))] if colour == 3 else []
    data = png(side, side, depth, colour, rows, *palette, interlace=interlace)
    assert len(data) > 40_000
    assert preprocess(data, SPEC).shape == SPEC.shape


@pytest.mark.usefixtures("no_decoder")
def test_a_png_of_very_many_small_chunks_is_refused() -> None:
    many = with_png_chunks(pillow(), *[chunk(b"IDAT", b"")] * 50_000)
    with pytest.raises(UndecodableImage, match="too many very small chunks"):
        preprocess(many, SPEC)


def test_a_png_in_chunks_of_8_kilobytes_is_decoded() -> None:
    rows = b"".join(b"\0" + np.random.default_rng(row).bytes(6000) for row in range(500))
    data = split_idat(png(2000, 500, 8, 2, rows))
    assert data.count(b"IDAT") > 300
    assert preprocess(data, SPEC).shape == SPEC.shape


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (tiled(8, 8, 16_384, 16_368), "far larger than its picture"),
        (tiled(8, 8, 0xFFFFFFFF, 0xFFFFFFFF), "far larger than its picture"),
        (tiled(16 * 182, 16 * 182, 16, 16), "more than 32,768 tiles"),
        (tiled(8, 8, 0, 16), "without pixels"),
    ],
)
def test_a_tiff_whose_tiles_cost_more_than_its_pixels_is_refused(data: bytes, sentence: str) -> None:
    assert MAX_TILES < 182 * 182
    with pytest.raises(UndecodableImage, match=sentence):
        preprocess(data, SPEC)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("tag", [258, 277])
def test_a_tiff_of_very_many_samples_or_bits_is_refused(tag: int) -> None:
    data = bytearray(tiled(2048, 2048, 2048, 2048))
    entry = data.index(struct.pack("<HH", tag, 4))
    data[entry + 8 : entry + 12] = struct.pack("<I", 60_000)
    with pytest.raises(UndecodableImage, match="far larger than its picture"):
        preprocess(bytes(data), SPEC)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("kind", [1, 16])
def test_a_tiff_whose_tiles_only_the_decoder_could_measure_is_refused(kind: int) -> None:
    data = tiled(8, 8, 16, 16).replace(struct.pack("<HH", 322, 4), struct.pack("<HH", 322, kind))
    with pytest.raises(UndecodableImage, match="in an unusual way"):
        preprocess(data, SPEC)


@pytest.mark.usefixtures("no_decoder")
def test_a_tiff_of_very_many_tags_is_refused() -> None:
    entries = struct.pack("<HHII", 270, 4, 1, 0) * (MAX_SEGMENTS + 1)
    with pytest.raises(UndecodableImage, match="more than 4,096 entries"):
        read_header(b"II*\0" + struct.pack("<IH", 8, MAX_SEGMENTS + 1) + entries)


@pytest.mark.parametrize("rows", [1, 7, 32, 65_535, 0xFFFFFFFF])
def test_a_tiff_may_say_more_rows_for_a_strip_than_it_has(rows: int) -> None:
    data = pillow(kind="TIFF", tiffinfo={278: rows})
    spec = PreprocessingSpec(height=FIELDS.shape[0], width=FIELDS.shape[1], colour="rgb")
    np.testing.assert_array_equal(preprocess(data, spec), FIELDS)


def test_a_large_transparent_picture_is_blended_in_bands_to_the_same_pixels() -> None:
    random = np.random.default_rng(1)
    picture = random.integers(0, 256, (700, 400, 4), np.uint8)
    encoded = cv2.imencode(".png", picture)[1].tobytes()
    spec = PreprocessingSpec(height=700, width=400, colour="rgb", background=(10, 200, 77))
    alpha = picture[..., 3:].astype(float)
    expected = (picture[..., 2::-1] * alpha + np.array((10, 200, 77)) * (255 - alpha)) / 255
    np.testing.assert_allclose(preprocess(encoded, spec), expected, atol=0.51)
