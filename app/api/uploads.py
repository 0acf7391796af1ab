"""Read pictures out of a request: a raw `image/*` body, or the files of a multipart form (RFC 7578).

It stops reading at the byte limit and keeps no temporary files. It looks at no picture: the bytes decide the format
later. FastAPI's own form reading spools every part to a file object and builds a form model, which costs more than the
inference itself for small pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.errors import MalformedRequest, UnsupportedMediaType, UploadTooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAX_PART_HEADER_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of one picture, and the file name that the client gave it."""

    data: bytes
    filename: str | None


async def read_picture(request: Request, *, field: str, max_bytes: int) -> Upload:
    """Return the one picture of the request: multipart field `field`, or the whole body."""
    media_type, options = _content_type(request)
    if media_type == "multipart/form-data":
        body = await _read_body(request, max_bytes)
        uploads = _files(body, options, field=field, max_files=1)
        return uploads[0]
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return Upload(await _read_body(request, max_bytes), None)
    raise _unsupported(media_type, field)


async def read_pictures(request: Request, *, field: str, max_bytes: int, max_pictures: int) -> Sequence[Upload]:
    """Return all pictures of a multipart request, in order: its parts named `field`."""
    media_type, options = _content_type(request)
    if media_type != "multipart/form-data":
        raise _unsupported(media_type, field)
    return _files(await _read_body(request, max_bytes), options, field=field, max_files=max_pictures)


def _content_type(request: Request) -> tuple[str, dict[bytes, bytes]]:
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    return media_type.decode("latin-1").lower(), options


def _unsupported(media_type: str, field: str) -> UnsupportedMediaType:
    sent = f"The body's Content-Type is '{media_type}'" if media_type else "The request has no Content-Type"
    return UnsupportedMediaType(
        f"{sent}; send a picture as multipart/form-data in the field '{field}', or on /predict as a raw image/* body."
    )


async def _read_body(request: Request, max_bytes: int) -> bytes:
    too_large = UploadTooLarge(f"The body is larger than {max_bytes:,} bytes. Send a smaller picture.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:  # chunked bodies declare nothing, and a declaration may lie
            raise too_large
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _files(body: bytes, options: dict[bytes, bytes], *, field: str, max_files: int) -> list[Upload]:
    boundary = options.get(b"boundary")
    if not boundary:
        raise MalformedRequest("The multipart Content-Type names no boundary; let the HTTP client set that header.")
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError) as exc:
        raise MalformedRequest(f"The multipart body cannot be read: {exc}.") from exc
    if not form.ended:
        raise MalformedRequest("The multipart body ends before its closing boundary.")
    parts = [part for part in form.parts if part.name == field]
    if not parts:
        names = ", ".join(f"'{part.name}'" for part in form.parts) or "none"
        raise MalformedRequest(f"The form has no field '{field}' (it has: {names}).")
    if len(parts) > max_files:
        raise MalformedRequest(
            f"The form has {len(parts)} pictures in '{field}'; at most {max_files} are accepted here."
            + (" Send many to /predict/batch." if max_files == 1 else "")
        )
    return [Upload(bytes(part.data), part.filename) for part in parts]


class _Part:
    def __init__(self) -> None:
        self.name = ""
        self.filename: str | None = None
        self.data = bytearray()


class _Form:
    """Collects what the parser's callbacks report, part by part."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._header_name = b""
        self._header_value = b""
        self._header_bytes = 0

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_part_data": self._add_data,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self.parts.append(_Part())
        self._header_bytes = 0

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += memoryview(data)[start:end]

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_value += data[start:end]

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_PART_HEADER_BYTES:
            raise MalformedRequest(f"A part's headers are longer than {_MAX_PART_HEADER_BYTES:,} bytes.")

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            part = self.parts[-1]
            part.name = options.get(b"name", b"").decode("utf-8", "replace")
            filename = options.get(b"filename")
            part.filename = None if filename is None else filename.decode("utf-8", "replace")
        self._header_name = self._header_value = b""

    def _end(self) -> None:
        self.ended = True
