"""Every odd kind of picture shows what it must, in colour and in grey, or fails with the error that it must."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contract.header import read_header
from app.contract.preprocessing import Image, PreprocessingSpec, preprocess
from app.errors import ImageError
from tests.mutation import damaged
from tests.oddities import FIELDS, Oddity, chunk, oddities, pillow, with_png_chunks

ODDITIES = oddities()


def outcome(data: bytes, spec: PreprocessingSpec) -> Image | str:
    try:
        return preprocess(data, spec)
    except ImageError as exc:
        return exc.code


@pytest.mark.parametrize("oddity", ODDITIES, ids=lambda oddity: oddity.name)
def test_an_odd_picture_shows_what_it_must_or_is_refused(oddity: Oddity) -> None:
    if oddity.shows is None:
        spec = PreprocessingSpec(height=8, width=8, colour="rgb")
        assert outcome(oddity.data, spec) == oddity.error
        return
    height, width = (min(side, 4096) for side in oddity.shows.shape[:2])
    luma = oddity.shows @ np.array([0.299, 0.587, 0.114])
    coloured = outcome(oddity.data, PreprocessingSpec(height=height, width=width, colour="rgb"))
    grey = outcome(oddity.data, PreprocessingSpec(height=height, width=width, colour="grey"))
    assert not isinstance(coloured, str), coloured
    assert not isinstance(grey, str), grey
    np.testing.assert_allclose(coloured, oddity.shows[:height, :width], atol=oddity.tolerance)
    np.testing.assert_allclose(grey[..., 0], luma[:height, :width], atol=oddity.tolerance + 1)


@pytest.mark.parametrize("oddity", [each for each in ODDITIES if each.shows is not None], ids=lambda each: each.name)
def test_the_header_of_an_odd_picture_says_its_size(oddity: Oddity) -> None:
    assert oddity.shows is not None
    header = read_header(oddity.data)
    assert (header.height, header.width) == oddity.shows.shape[:2]


FLIPPED = {kind: pillow(kind=kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")} | {
    "progressive JPEG": pillow(kind="JPEG", progressive=True),
    "lossless WebP": pillow(kind="WEBP", lossless=True),
    "LZW TIFF": pillow(kind="TIFF", compression="tiff_lzw"),
    "arithmetic JPEG": next(each.data for each in ODDITIES if each.name == "arithmetic JPEG"),
    "CMYK JPEG": next(each.data for each in ODDITIES if each.name == "CMYK JPEG"),
    "animated WebP": next(each.data for each in ODDITIES if each.name == "animated WebP"),
    "animated GIF": next(each.data for each in ODDITIES if each.name == "animated GIF"),
}


@pytest.mark.parametrize("kind", FLIPPED)
def test_a_picture_with_any_bit_flipped_has_the_full_shape_or_is_an_image_error(kind: str) -> None:
    """All bits of the first 300 bytes, where headers lie, and of every 61st byte behind."""
    whole = FLIPPED[kind]
    spec = PreprocessingSpec(height=8, width=8, colour="rgb")
    for place in [*range(min(300, len(whole))), *range(300, len(whole), 61)]:
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            try:
                header = read_header(bytes(flipped))
                if header.pixels > 1_000_000:  # such are refused, or too much for a test
                    continue
                tensor = preprocess(bytes(flipped), spec, header=header)
            except ImageError:
                continue
            assert (tensor.shape, str(tensor.dtype)) == (spec.shape, "uint8")


@pytest.mark.parametrize("kind", FLIPPED)
def test_a_picture_cut_off_anywhere_has_the_full_shape_or_is_an_image_error(kind: str) -> None:
    whole = FLIPPED[kind]
    spec = PreprocessingSpec(height=8, width=8, colour="rgb")
    for length in [*range(min(64, len(whole))), *range(64, len(whole), max(1, len(whole) // 150))]:
        found = outcome(whole[:length], spec)
        assert (
            found in ("unsupported_format", "undecodable_image") if isinstance(found, str) else found.shape == (8, 8, 3)
        )


def test_what_a_png_says_beside_its_pixels_changes_none_of_them() -> None:
    """Gamma, chromaticities, a background, significant bits: none is acted upon, nor is a chunk that nobody knows."""
    plain = pillow()
    beside = [
        chunk(b"gAMA", (100_000).to_bytes(4, "big")),
        chunk(
            b"cHRM", b"".join(value.to_bytes(4, "big") for value in (31270, 32900, 64000, 33000, 30000, 60000, 1, 2))
        ),
        chunk(b"sBIT", b"\x03\x03\x03"),
        chunk(b"bKGD", b"\0\1\0\2\0\3"),
        chunk(b"pHYs", bytes(4) + b"\0\0\0\1\0"),
        chunk(b"tEXt", b"Comment\0nothing"),
        chunk(b"cICP", b"\x09\x10\x00\x01"),
        chunk(b"prVt", b"whatever"),
    ]
    spec = PreprocessingSpec(height=FIELDS.shape[0], width=FIELDS.shape[1], colour="rgb")
    for each in [*([one] for one in beside), beside]:
        np.testing.assert_array_equal(preprocess(with_png_chunks(plain, *each), spec), FIELDS)


SIDES = st.integers(1, 40)
SPECS = st.builds(
    PreprocessingSpec,
    height=SIDES,
    width=SIDES,
    colour=st.sampled_from(["grey", "rgb"]),
    background=st.tuples(*[st.integers(0, 255)] * 3),
    resize=st.sampled_from(["stretch", "pad", "crop"]),
    interpolation=st.sampled_from(["area", "linear"]),
    polarity=st.sampled_from(["as_is", "light_on_dark"]),
)


@settings(max_examples=400)
@given(SPECS, st.sampled_from([each.data for each in ODDITIES if len(each.data) < 20_000]), st.integers(0, 1 << 32))
def test_any_bytes_under_any_spec_are_a_tensor_of_it_or_an_image_error(
    spec: PreprocessingSpec, data: bytes, seed: int
) -> None:
    broken = damaged(data, ODDITIES[seed % len(ODDITIES)].data, Random(seed))  # noqa: S311 - to be repeatable
    try:
        header = read_header(broken)
        if header.pixels > 1_000_000:
            return
        tensor = preprocess(broken, spec, header=header)
    except ImageError:
        return
    assert (tensor.shape, str(tensor.dtype)) == (spec.shape, "uint8")
    assert tensor.flags.c_contiguous
