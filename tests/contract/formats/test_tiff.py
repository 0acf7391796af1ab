"""Every layout of a TIFF is read as its tags say, or rejected by name: never as other pixels."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pillow

from app.contract.preprocessing import PreprocessingSpec, decode
from app.errors import UndecodableImage, UnsupportedLayout
from tests.contract.formats.tiff_files import HEIGHT, PHOTOMETRIC, WIDTH, Alpha, Layout, file_of, layouts_of, tiff

SPEC = PreprocessingSpec(height=HEIGHT, width=WIDTH, colour="rgb")
ALPHAS: tuple[Alpha, ...] = ("none", "associated", "unassociated", "unspecified")
CELLS = [
    (colours, bits, alpha)
    for colours in PHOTOMETRIC
    for bits in (1, 2, 4, 8, 12, 16, 32)
    for alpha in ALPHAS
    if colours != "palette" or bits <= 16
]

# (colours, bits, alpha) of which every layout is read. Of the others some are, and some are rejected.
READ = {
    *(("grey", bits, "none") for bits in (1, 2, 4, 8, 16)),
    *(("white at 0", bits, "none") for bits in (1, 2, 4, 8)),
    *(("palette", bits, "none") for bits in (1, 2, 4, 8)),
    *(("rgb", bits, alpha) for bits in (8, 16) for alpha in ALPHAS),
    *(("cmyk", bits, "none") for bits in (8, 16)),
    ("cmyk", 8, "unspecified"),
    ("grey", 8, "unspecified"),
    ("palette", 8, "unspecified"),
    ("ycbcr", 8, "none"),
}


def shown(data: bytes) -> np.ndarray:
    image = decode(data, SPEC)
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def shown_or_rejection(data: bytes) -> np.ndarray | str:
    try:
        return shown(data)
    except UnsupportedLayout as exc:
        return str(exc)


@pytest.mark.parametrize(("colours", "bits", "alpha"), CELLS)
def test_each_layout_shows_its_pixels_or_is_rejected_by_name(colours: str, bits: int, alpha: Alpha) -> None:
    layouts = list(layouts_of(colours, bits, alpha))
    read = 0
    for layout in layouts:
        data, expected = file_of(layout)
        found = shown_or_rejection(data)
        if isinstance(found, str):
            assert found.startswith("A TIFF with "), layout
            assert found.endswith(" is not supported. Save it as 8-bit RGB or grey."), layout
            assert str(bits) in found, layout
        else:
            read += 1
            assert found.shape == expected.shape, layout
            assert np.abs(found - expected).max() <= (1 if alpha != "none" else 0), layout
    if (colours, bits, alpha) in READ:
        assert read == len(layouts)


@pytest.mark.parametrize(
    ("layout", "what"),
    [
        (Layout("grey", 16, "unassociated"), "16-bit grey and alpha"),
        (Layout("cielab", 8), "8-bit CIELab"),
        (Layout("rgb", 32), "32-bit pixels"),
        (Layout("grey", 8, "associated", in_planes=True), "8-bit grey and alpha in separate planes"),
        (Layout("rgb", 4), "4-bit RGB"),
    ],
)
def test_what_is_not_supported_is_named(layout: Layout, what: str) -> None:
    with pytest.raises(
        UnsupportedLayout, match=f"^A TIFF with {what} is not supported. Save it as 8-bit RGB or grey.$"
    ):
        decode(file_of(layout)[0], SPEC)


@pytest.mark.parametrize(
    ("tag", "values", "what"),
    [
        (339, [3], "floating-point pixels"),
        (339, [2], "signed pixels"),
        (259, [34712], "compression 34712"),
        (258, [5], "5-bit pixels"),
        (262, [32803], "8-bit samples of a camera"),
    ],
)
def test_tags_of_what_is_not_supported_are_named(tag: int, values: list[int], what: str) -> None:
    samples = np.zeros((HEIGHT, WIDTH, 1), np.int64)
    with pytest.raises(UnsupportedLayout, match=what):
        decode(tiff(samples, Layout("grey", 8), tags={tag: np.array(values)}), SPEC)


def test_depths_that_differ_are_named() -> None:
    samples = np.zeros((HEIGHT, WIDTH, 3), np.int64)
    with pytest.raises(UnsupportedLayout, match="samples of 5 and 6 bits"):
        decode(tiff(samples, Layout("rgb", 8), tags={258: np.array([5, 6, 5])}), SPEC)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"])
def test_each_lossless_compression_is_read(compression: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    np.testing.assert_array_equal(shown(written(Pillow.fromarray(pixels), compression)), pixels)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_each_fax_compression_is_read(compression: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 2, (HEIGHT, WIDTH), np.uint8).astype(bool)
    np.testing.assert_array_equal(shown(written(Pillow.fromarray(pixels), compression))[:, :, 0], pixels * 255)


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr"])
def test_jpeg_inside_is_read_as_jpeg(mode: str) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([x * 5, y * 9, 255 - x * 5], axis=2).astype(np.uint8)
    picture = Pillow.fromarray(pixels).convert(mode)
    expected = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(shown(written(picture, "jpeg", quality=95)) - expected).mean() < 4


@pytest.mark.parametrize("layout", [Layout("rgb", 8), Layout("rgb", 16, in_planes=True), Layout("grey", 4)])
def test_a_file_that_is_cut_off_is_damaged(layout: Layout) -> None:
    data = file_of(layout)[0]
    pixels, directory = data[8 : len(data) // 2], int.from_bytes(data[4:8], "little")
    for start in range(8, 8 + len(pixels), 97):  # the directory is behind the pixels: cut within them, and keep it
        cut = data[:start] + data[directory:]
        moved = cut[:4] + start.to_bytes(4, "little") + cut[8:]
        with pytest.raises(UndecodableImage):
            decode(moved, SPEC)


def written(picture: Pillow.Image, compression: str, **options: int) -> bytes:
    file = BytesIO()
    picture.save(file, "TIFF", compression=compression, **options)
    return file.getvalue()
