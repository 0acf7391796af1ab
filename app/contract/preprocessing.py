"""Turn an encoded picture into the tensor that the network sees: one function, driven by one spec.

Training and serving both call it, and nothing else in the project decodes, resizes or converts a picture. It knows
nothing of models, batches, augmentation or HTTP. The scale to [0, 1] is not here: it is the first layer of the graph.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.contract.formats.bmp import decode_bmp
from app.contract.formats.gif import decode_gif
from app.contract.formats.heif import check_heif, decode_avif, decode_heic
from app.contract.formats.pixels import Pixels, damaged, unsupported
from app.contract.formats.tiff import decode_tiff
from app.contract.framing import border_level, frame
from app.contract.header import ImageFormat, ImageHeader, read_header
from app.contract.structure import (
    MAX_SEGMENTS,
    check_jpeg,
    check_tiff,
    find_png_chunks,
    png_of_pixels,
)

Image = NDArray[np.uint8]
PreprocessingVersion = Literal[1, 2]
_Side = Annotated[int, Field(ge=1, le=4096)]
_Level = Annotated[int, Field(ge=0, le=255)]

_EXIF_ORIENTATION_TAG = 0x0112
_BAND_PIXELS = 1 << 16
_REDUCED_SIDES = 2  # least shorter side of a reduced JPEG, in multiples of the target's longer side
_REDUCED_JPEG = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    1: cv2.IMREAD_GRAYSCALE,
}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of OpenCV's RGB-to-grey conversion


class PreprocessingSpec(BaseModel):
    """What happens to every picture, in this order:

    decode → EXIF orientation → 8 bit → alpha over `background` → `colour` → `resize` → `polarity` → padding;
    with `framing`, and if anything is drawn, `polarity` and then `framing` replace all steps after `colour`.

    The result is uint8 of `shape` (height, width, channels). `version` numbers the semantics: a change of one pixel of
    any output needs a new version, and readers reject versions that they do not know. Version 2 has `jpeg_scale` and
    `framing`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: PreprocessingVersion = 1
    height: _Side
    width: _Side
    colour: Literal["grey", "rgb"]
    background: tuple[_Level, _Level, _Level] = (255, 255, 255)
    """RGB behind transparent pixels, and beside the picture if `resize` is "pad"."""
    resize: Literal["stretch", "pad", "crop"] = "stretch"
    """To the exact size; to fit inside it, centred; or to cover it, cut at the centre."""
    interpolation: Literal["area", "linear"] = "area"
    """"area" averages if a picture shrinks in both directions and is linear elsewhere (OpenCV's INTER_AREA)."""
    polarity: Literal["as_is", "light_on_dark"] = "as_is"
    """"light_on_dark" inverts a picture whose border is lighter than mid-grey on average; padding is then black."""
    jpeg_scale: Literal["full", "reduced"] = Field("full", exclude_if=lambda scale: scale == "full")
    """"reduced" decodes a JPEG at the smallest of 1/8, 1/4 and 1/2 of its size whose shorter side is at least twice the
    target's longer one: a photo of 12 or 48 megapixels then takes a third of the time and a fraction of the memory."""
    framing: Literal["none", "mass"] = Field("none", exclude_if=lambda framing: framing == "none")
    """"mass" scales the drawing on a plain ground to 20/28 of each side and puts its centre of mass in the middle, as
    in MNIST (`app.contract.framing`). It is for grey pictures that are "light_on_dark"."""

    @model_validator(mode="after")
    def _version_has_the_fields(self) -> Self:
        if self.version == 1 and self.jpeg_scale != "full":
            raise ValueError("preprocessing of version 1 has no jpeg_scale")
        if self.version == 1 and self.framing != "none":
            raise ValueError("preprocessing of version 1 has no framing")
        return self

    @model_validator(mode="after")
    def _frames_light_on_dark(self) -> Self:
        if self.framing != "none" and (self.colour, self.polarity) != ("grey", "light_on_dark"):
            raise ValueError("framing takes grey pictures that are light_on_dark")
        return self

    @property
    def channels(self) -> int:
        return 1 if self.colour == "grey" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, self.channels)


def preprocess(data: bytes, spec: PreprocessingSpec, *, header: ImageHeader | None = None) -> Image:
    """Return the tensor of an encoded picture: uint8, `spec.shape`.

    Pass `header` if it has been read already, so that it is not read again. Raises UnsupportedFormat or
    UndecodableImage.
    """
    return prepare(decode(data, spec, header=header), spec)


def decode(data: bytes, spec: PreprocessingSpec, *, header: ImageHeader | None = None) -> Image:
    """Return the picture that `prepare` takes, at its own size: upright, opaque, 8 bit, (H, W) grey or (H, W, 3) RGB.

    Raises an ImageError.
    """
    header = header or read_header(data)
    return _decode_jpeg(data, header, spec) if header.format == "jpeg" else _decode(data, header, spec)


def jpeg_divisor(header: ImageHeader, spec: PreprocessingSpec) -> int:
    """Return the number by which `decode` divides the sides of a JPEG, 1, 2, 4 or 8, in any EXIF orientation."""
    if spec.jpeg_scale == "full":
        return 1
    shorter, needed = min(header.width, header.height), _REDUCED_SIDES * max(spec.height, spec.width)
    return next((divisor for divisor in _REDUCED_JPEG if -(-shorter // divisor) >= needed), 1)


def prepare(image: Image, spec: PreprocessingSpec) -> Image:
    """Return the tensor of a decoded picture: (H, W) grey or (H, W, 3) RGB, uint8, already upright and opaque."""
    image = _in_colour_of(spec, image)
    if spec.framing == "mass" and (framed := frame(image, spec.height, spec.width)) is not None:
        return framed.image.reshape(spec.shape)
    image = _resize(image, spec)
    if spec.polarity == "light_on_dark" and 2 * border_level(image) > 255:
        image = ~image
    if image.shape[:2] != (spec.height, spec.width):
        image = _pad(image, spec)
    return np.ascontiguousarray(image).reshape(spec.shape)


class Box(NamedTuple):
    """A part of a picture, as shares of its width and height, measured from its upper left corner."""

    left: float
    top: float
    width: float
    height: float


def seen_part(image: Image, spec: PreprocessingSpec) -> Box:
    """Return which part of a decoded picture its tensor shows: a tensor with padding shows more than the picture."""
    if spec.framing == "mass":
        framed = frame(_in_colour_of(spec, image), spec.height, spec.width)
        if framed is not None:
            return Box(framed.left, framed.top, framed.width, framed.height)
    height, width = image.shape[:2]
    if spec.resize == "crop":
        top, left, seen_height, seen_width = _crop_to_ratio(height, width, spec)
        return Box(left / width, top / height, seen_width / width, seen_height / height)
    inner_height, inner_width = _size_inside(height, width, spec)
    top, left = _margins(inner_height, inner_width, spec)
    return Box(-left / inner_width, -top / inner_height, spec.width / inner_width, spec.height / inner_height)


def use_one_thread_per_picture() -> None:
    """Keep OpenCV from starting threads of its own: callers run many pictures side by side. Also silences its log."""
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _decode_jpeg(data: bytes, header: ImageHeader, spec: PreprocessingSpec) -> Image:
    check_jpeg(data)
    # JPEG has no alpha, so OpenCV may turn it by its EXIF orientation. A grey target takes the file's own luma plane.
    flags = _REDUCED_JPEG[jpeg_divisor(header, spec)]
    if spec.colour == "rgb":
        flags |= cv2.IMREAD_COLOR_RGB
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise damaged("JPEG")
    return np.asarray(image, np.uint8)


def _decode(data: bytes, header: ImageHeader, spec: PreprocessingSpec) -> Image:
    pixels, premultiplied = _pixels(data, header)
    image = _to_8_bit(pixels, header.format)
    if image.ndim == 2:
        return image
    if image.shape[2] == 4:
        image = _composite(image, spec.background, premultiplied=premultiplied)
    return image


def _pixels(data: bytes, header: ImageHeader) -> Pixels:
    """Return the pixels as the file has them, upright: of 8 or 16 bits, grey, RGB or RGBA."""
    match header.format:
        case "png":
            return Pixels(_png_pixels(data))
        case "tiff":
            check_tiff(data, header.width, header.height)
            return decode_tiff(data)
        case "bmp":
            return decode_bmp(data)
        case "gif":
            return decode_gif(data)
        case "avif":
            check_heif(data, "AVIF")
            return decode_avif(data, header.pixels)
        case "heic":
            check_heif(data, "HEIC")
            return decode_heic(data, header.pixels)
        case _:
            return Pixels(_as_rgb(_pixels_upright(data, header.format, has_metadata=True), header.format))


def _png_pixels(png: bytes) -> NDArray[Any]:
    chunks = find_png_chunks(png)
    if chunks is None:
        raise damaged("PNG")
    pixels = _pixels_upright(png_of_pixels(png, chunks), "png", has_metadata=b"eXIf" in chunks)
    if pixels.ndim == 2:
        return _with_transparent_level(pixels, png, chunks) if b"tRNS" in chunks else pixels
    return _as_rgb(pixels, "png")


def _pixels_upright(encoded: bytes, image_format: ImageFormat, *, has_metadata: bool) -> NDArray[Any]:
    """Return what OpenCV decodes, of any depth, grey, BGR or BGRA, turned by its EXIF orientation."""
    # IMREAD_UNCHANGED keeps alpha and depth, which IMREAD_COLOR drops, but leaves the EXIF orientation to us.
    pixels: NDArray[Any] | None
    kinds: Sequence[int] = ()
    metadata: Sequence[NDArray[Any]] = ()
    file = np.frombuffer(encoded, np.uint8)
    try:
        if has_metadata:
            pixels, kinds, metadata = cv2.imdecodeWithMetadata(file, cv2.IMREAD_UNCHANGED)
        else:
            pixels = cv2.imdecode(file, cv2.IMREAD_UNCHANGED)  # a sixth faster for a small picture
    except cv2.error:
        pixels = None
    if pixels is None:
        raise damaged(image_format.upper())
    for kind, found in zip(kinds, metadata, strict=True):
        if kind == cv2.IMAGE_METADATA_EXIF:
            pixels = _turn_upright(pixels, _exif_orientation(found.tobytes()))
    return pixels


def _as_rgb(pixels: NDArray[Any], image_format: ImageFormat) -> NDArray[Any]:
    """Return RGB or RGBA for OpenCV's BGR or BGRA; grey stays grey."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] not in (3, 4):
        raise unsupported(image_format.upper(), f"{pixels.shape[2]} channels", "grey or RGB")
    code = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return np.asarray(cv2.cvtColor(pixels, code))


def _to_8_bit(pixels: NDArray[Any], image_format: ImageFormat) -> Image:
    if pixels.dtype == np.uint16:
        image = np.empty(pixels.shape, np.uint8)
        np.right_shift(pixels, 8, out=image, casting="unsafe")
        return image
    if pixels.dtype != np.uint8:
        raise unsupported(image_format.upper(), f"{pixels.dtype} pixels", "one of 8 or 16 bits")
    return pixels


def _in_colour_of(spec: PreprocessingSpec, image: Image) -> Image:
    if image.ndim == 3 and spec.colour == "grey":
        return _convert(image, cv2.COLOR_RGB2GRAY)
    if image.ndim == 2 and spec.colour == "rgb":
        return _convert(image, cv2.COLOR_GRAY2RGB)
    return image


def _convert(image: Image, code: int) -> Image:
    return np.asarray(cv2.cvtColor(image, code), np.uint8)


def _with_transparent_level(grey: NDArray[Any], png: bytes, chunks: dict[bytes, int]) -> NDArray[Any]:
    """Return (H, W, 4) for a grey PNG that declares one level transparent (tRNS), which OpenCV reads for colours alone.

    The declaration counts before the pixels, which IDAT holds.
    """
    position = chunks[b"tRNS"]
    if position > chunks.get(b"IDAT", position):
        return grey
    level, depth = int.from_bytes(png[position + 8 : position + 10], "big"), png[24]
    if depth < 8:
        level *= 255 // (2**depth - 1)  # as the pixels were spread over 8 bits
    alpha = np.where(grey == level, 0, np.iinfo(grey.dtype).max).astype(grey.dtype)
    return np.stack([grey, grey, grey, alpha], axis=2)


def _composite(image: Image, background: tuple[int, int, int], *, premultiplied: bool) -> Image:
    """Lay RGBA pixels over an opaque background, rounding to the nearest level: (H, W, 4) → (H, W, 3)."""
    height, width = image.shape[:2]
    rows = max(1, _BAND_PIXELS // width)
    if height <= rows:
        return _composite_band(image, background, premultiplied=premultiplied)
    opaque = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):  # the arithmetic takes several times a picture's memory
        band = slice(top, top + rows)
        opaque[band] = _composite_band(image[band], background, premultiplied=premultiplied)
    return opaque


def _composite_band(image: Image, background: tuple[int, int, int], *, premultiplied: bool) -> Image:
    alpha = image[:, :, 3:].astype(np.uint16)
    behind = np.array(background, np.uint16) * (255 - alpha)
    if premultiplied:
        return np.minimum(image[:, :, :3] + (behind + 127) // 255, 255).astype(np.uint8)
    return ((image[:, :, :3] * alpha + behind + 127) // 255).astype(np.uint8)


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, of an EXIF block (a TIFF directory); 1 if it says nothing sensible."""
    exif = exif.removeprefix(b"Exif\x00\x00")
    order: Literal["little", "big"] = "little" if exif[:2] == b"II" else "big"
    directory = int.from_bytes(exif[4:8], order)
    entries = int.from_bytes(exif[directory : directory + 2], order)
    for index in range(min(entries, MAX_SEGMENTS)):
        at = directory + 2 + 12 * index
        entry = exif[at : at + 12]
        if int.from_bytes(entry[:2], order) == _EXIF_ORIENTATION_TAG:
            orientation = int.from_bytes(entry[8:10], order)
            return orientation if 1 <= orientation <= 8 else 1
    return 1


def _turn_upright(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _resize(image: Image, spec: PreprocessingSpec) -> Image:
    """Resize to the target, or for "pad" to the largest size inside it that keeps the aspect ratio."""
    height, width = image.shape[:2]
    if height == spec.height and width == spec.width:
        return image
    if spec.resize == "crop":
        top, left, height, width = _crop_to_ratio(height, width, spec)
        image = image[top : top + height, left : left + width]
    target_height, target_width = _size_inside(height, width, spec)
    if (height, width) == (target_height, target_width):
        return image
    shrinks = target_height <= height and target_width <= width
    interpolation = cv2.INTER_AREA if spec.interpolation == "area" and shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (target_width, target_height), interpolation=interpolation), np.uint8)


def _crop_to_ratio(height: int, width: int, spec: PreprocessingSpec) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the part of a picture that "crop" keeps."""
    scale = min(height / spec.height, width / spec.width)
    crop_height = max(1, min(height, round(spec.height * scale)))
    crop_width = max(1, min(width, round(spec.width * scale)))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _size_inside(height: int, width: int, spec: PreprocessingSpec) -> tuple[int, int]:
    """Return the height and width that a picture takes up in the tensor; only with "pad" are these less than the
    tensor's."""
    if spec.resize != "pad":
        return spec.height, spec.width
    scale = min(spec.height / height, spec.width / width)
    return max(1, min(spec.height, round(height * scale))), max(1, min(spec.width, round(width * scale)))


def _margins(height: int, width: int, spec: PreprocessingSpec) -> tuple[int, int]:
    """Return the rows above and the columns left of a picture of this size in the tensor."""
    return (spec.height - height) // 2, (spec.width - width) // 2


def _pad(image: Image, spec: PreprocessingSpec) -> Image:
    level = (0, 0, 0) if spec.polarity == "light_on_dark" else spec.background
    fill = round(sum(weight * channel for weight, channel in zip(_LUMA, level, strict=True)))
    shape = spec.shape[:2] if image.ndim == 2 else spec.shape
    padded = np.full(shape, fill if image.ndim == 2 else level, np.uint8)
    top, left = _margins(image.shape[0], image.shape[1], spec)
    padded[top : top + image.shape[0], left : left + image.shape[1]] = image
    return padded
