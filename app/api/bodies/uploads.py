"""Read pictures from a request: a raw body, or the files of a multipart form.

Reading stops at the byte limit, and no temporary files are written. The picture's format is not determined here. A body
without a Content-Type is taken as a raw one, unless it is empty or may be a form.
"""

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.api.bodies.content_coding import Inflater
from app.api.bodies.multipart import Part, boundary_of, is_form, split_form
from app.errors import MalformedRequest, UnsupportedMediaType, UploadTooLarge

_RAW = ("image/", "application/octet-stream")
_URL_ENCODED = "application/x-www-form-urlencoded"
_SLICES_IN_A_TURN = 4
"""Inflate at most this many slices, about a millisecond's work, before yielding to the event loop."""

Received = Callable[[int], None]


def check_content_type(content_type: str, field: str, *, forms_only: bool = False) -> None:
    """Raise UnsupportedMediaType or MalformedRequest if no body of this type can hold pictures in `field`."""
    if forms_only and not is_form(content_type):
        raise _unsupported(content_type, field)
    _boundary(content_type, field)


def picture_of(body: bytes, *, content_type: str, field: str, max_bytes: int, max_fields: int) -> bytes:
    """Return the one picture of a body: its multipart field `field`, or all of it.

    `max_fields` is how many fields a form may have besides its pictures. Raises UnsupportedMediaType, MalformedRequest
    for a broken form, or UploadTooLarge.
    """
    boundary = _boundary(content_type, field)
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    if boundary is not None:
        return _files(split_form(body, boundary, max_parts=1 + max_fields), field=field, max_files=1)[0].data
    if not content_type and (not body or body.startswith(b"--")):
        raise _unsupported(content_type, field)
    return body


def pictures_of(body: bytes, *, content_type: str, field: str, max_pictures: int, max_fields: int) -> list[Part]:
    """Return all pictures of a form, in order: its parts named `field`. Raises as `picture_of` does."""
    form = split_form(body, boundary_of(content_type), max_parts=max_pictures + max_fields)
    return _files(form, field=field, max_files=max_pictures)


async def read_body(
    receive: Receive, content_length: str, max_bytes: int, received: Received, inflater: Inflater | None = None
) -> bytes:
    """Return a whole body, inflated if an inflater is given. `max_bytes` limits it as received and as inflated.

    `received` gets the size of each piece that is kept, after inflation. While reading, raises UploadTooLarge,
    MalformedRequest, or ClientDisconnect.
    """
    if content_length.isdecimal() and int(content_length) > max_bytes:
        raise _too_large(max_bytes)
    pieces: list[bytes] = []
    arrived = size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        arrived += len(chunk)
        if arrived > max_bytes:  # chunked bodies declare no length, and a declared length may be wrong
            raise _too_large(max_bytes)
        if inflater is None:
            received(len(chunk))
            pieces.append(chunk)
        else:
            for number, piece in enumerate(inflater.inflate(chunk), 1):
                size += len(piece)
                if size > max_bytes:
                    raise _too_large(max_bytes, ", inflated,")
                received(len(piece))
                pieces.append(piece)
                if number % _SLICES_IN_A_TURN == 0:
                    await asyncio.sleep(0)
        if not message.get("more_body", False):
            if inflater is not None:
                inflater.end()
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _boundary(content_type: str, field: str) -> bytes | None:
    """Return the boundary of a form, None for a raw body. Raises UnsupportedMediaType or MalformedRequest."""
    if not content_type or content_type.lower().startswith(_RAW):
        return None
    if is_form(content_type):
        return boundary_of(content_type)
    raise _unsupported(content_type, field)


def _unsupported(content_type: str, field: str) -> UnsupportedMediaType:
    if content_type.lower().startswith(_URL_ENCODED):
        return UnsupportedMediaType(
            f"The body's Content-Type is '{_URL_ENCODED}', which curl adds by itself; send a form with "
            f"-F {field}=@picture.png, or on /predict a raw body with -H 'Content-Type: image/png'."
        )
    sent = f"The body's Content-Type is '{content_type[:80]}'" if content_type else "The request has no Content-Type"
    return UnsupportedMediaType(
        f"{sent}; send a picture as multipart/form-data in the field '{field}', or on /predict as a raw image/* body."
    )


def _too_large(max_bytes: int, when: str = "") -> UploadTooLarge:
    return UploadTooLarge(f"The body{when} is larger than {max_bytes:,} bytes. Send a smaller picture.")


def _files(form: list[Part], *, field: str, max_files: int) -> list[Part]:
    files = [part for part in form if part.name == field]
    if not files:
        names = ", ".join(f"'{part.name}'" for part in form) or "none"
        raise MalformedRequest(f"The form has no field '{field}' (it has: {names}).")
    if len(files) > max_files:
        raise MalformedRequest(
            f"The form has {len(files)} pictures in '{field}'; send at most {max_files} here."
            + (" Send many to /predict/batch." if max_files == 1 else "")
        )
    return files
