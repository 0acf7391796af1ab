"""What is fuzzed: for each kind of input a function that takes any bytes and raises for a defect only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2

from app.api.bodies.uploads import picture_of
from app.contract.header import ImageHeader, read_header
from app.contract.preprocessing import PreprocessingSpec, preprocess
from app.errors import ImageError, RequestError
from tests.fuzz.connections import connection, connection_seeds
from tests.oddities import oddities, pillow

Target = Callable[[bytes], str]

_MAX_PIXELS = 1_000_000
_SPECS = (
    PreprocessingSpec(height=8, width=8, colour="grey", polarity="light_on_dark"),
    PreprocessingSpec(height=9, width=7, colour="rgb", resize="pad", background=(1, 2, 3)),
)
_LARGEST_SEED = 20_000


def picture(data: bytes) -> str:
    """Preprocess an upload under two specs; return what came of it, in a word."""
    try:
        header = read_header(data)
    except ImageError as exc:
        return exc.code
    assert header.width > 0
    assert header.height > 0
    if header.pixels > _MAX_PIXELS:
        return "too large"
    outcome: str = header.format
    for spec in _SPECS:
        try:
            with _decoders_held_to(header):
                tensor = preprocess(data, spec, header=header)
        except ImageError as exc:
            outcome += f" {exc.code}"
        else:
            assert (tensor.shape, str(tensor.dtype)) == (spec.shape, "uint8")
    return outcome


def form(data: bytes) -> str:
    """Read a request whose content type is the first line, and preprocess the picture in it."""
    content_type, _, body = data.partition(b"\n")
    try:
        found = picture_of(
            body, content_type=content_type.decode("latin-1"), field="file", max_bytes=100_000, max_fields=10
        )
    except RequestError as exc:
        return exc.code
    assert len(found) <= len(body)
    return picture(found)


def picture_seeds() -> list[bytes]:
    return [oddity.data for oddity in oddities() if len(oddity.data) <= _LARGEST_SEED]


def form_seeds() -> list[bytes]:
    png = pillow()
    head = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    plain = b"--x\r\n" + head + png + b"\r\n--x--\r\n"
    return [
        b"image/png\n" + png,
        b"application/octet-stream\n" + png,
        b"text/plain\n" + png,
        b"multipart/form-data; boundary=x\n" + plain,
        b'multipart/form-data; charset=utf-8; boundary="x"\n' + plain,
        b"multipart/form-data; boundary=x\npreamble\r\n" + plain + b"epilogue",
        b"multipart/form-data; boundary=x\n--x \t\r\n" + head + b"\r\n--xy\r\n--x\r\n" + head + b"\r\n--x--",
        b'multipart/form-data; boundary=x\n--x\r\nX:\r\ncontent-disposition:form-data;name=f;a="\\""\r\n\r\n\r\n--x--',
        b"multipart/form-data\n" + plain,
        b'multipart/form-data; charset="a;\\"b"; boundary="--=_\\/:?"\n' + plain.replace(b"--x", b"----=_/:?"),
        b"multipart/form-data; boundary=x\n" + plain.replace(b"a.png", rb"C:\a%22\"b\\"),
        b"multipart/form-data; boundary=x\n"
        + plain.replace(b'; filename="', b";\r\n\tfilename*=utf-8'en'%C3%A9; x=\""),
        b"\n" + png,
        b"\n" + plain,
    ]


TARGETS: dict[str, tuple[Target, Callable[[], list[bytes]]]] = {
    "picture": (picture, picture_seeds),
    "form": (form, form_seeds),
    "connection": (connection, connection_seeds),
}


@contextmanager
def _decoders_held_to(header: ImageHeader) -> Iterator[None]:
    """Fail where OpenCV decodes more pixels than the header said: that is how the limit on pixels would be passed."""
    plain, with_metadata = cv2.imdecode, cv2.imdecodeWithMetadata

    def check(pixels: Any) -> None:
        assert pixels is None or pixels.shape[0] * pixels.shape[1] <= header.pixels, (pixels.shape, header)

    def imdecode(*arguments: Any) -> Any:
        pixels = plain(*arguments)
        check(pixels)
        return pixels

    def imdecode_with_metadata(*arguments: Any) -> Any:
        found = with_metadata(*arguments)
        check(found[0])
        return found

    cv2.imdecode, cv2.imdecodeWithMetadata = imdecode, imdecode_with_metadata  # type: ignore[assignment]
    try:
        yield
    finally:
        cv2.imdecode, cv2.imdecodeWithMetadata = plain, with_metadata
