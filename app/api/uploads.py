"""Read pictures out of a request: a raw `image/*` body, or the files of a multipart form.

It stops reading at the byte limit and keeps no temporary files. It looks at no picture: the bytes decide the format
later.
"""

from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.api.multipart import Part, boundary_of, split_form
from app.errors import MalformedRequest, UnsupportedMediaType, UploadTooLarge

_FORM = "multipart/form-data"
_RAW = ("image/", "application/octet-stream")

Received = Callable[[int], None]


async def read_picture(
    receive: Receive,
    *,
    content_type: str,
    content_length: str,
    field: str,
    max_bytes: int,
    max_fields: int,
    received: Received,
) -> bytes:
    """Return the one picture of a request: its multipart field `field`, or its whole body.

    `max_fields` is how many fields a form may have beside its pictures. `received` is told the size of each piece that
    arrives, and may raise. Raises UnsupportedMediaType or MalformedRequest for its headers, UploadTooLarge while it
    reads, MalformedRequest for a broken form, and ClientDisconnect.
    """
    boundary = _boundary(content_type, field)
    return _picture(await read_body(receive, content_length, max_bytes, received), boundary, field, max_fields)


def picture_of(body: bytes, *, content_type: str, field: str, max_bytes: int, max_fields: int) -> bytes:
    """Return the one picture of a request whose body is at hand. Raises as `read_picture` does."""
    boundary = _boundary(content_type, field)
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return _picture(body, boundary, field, max_fields)


async def read_pictures(
    receive: Receive,
    *,
    content_type: str,
    content_length: str,
    field: str,
    max_bytes: int,
    max_pictures: int,
    max_fields: int,
    received: Received,
) -> list[Part]:
    """Return all pictures of a multipart request, in order: its parts named `field`. Raises as `read_picture` does."""
    if not content_type.lower().startswith(_FORM):
        raise _unsupported(content_type, field)
    boundary = boundary_of(content_type)
    body = await read_body(receive, content_length, max_bytes, received)
    form = split_form(body, boundary, max_parts=max_pictures + max_fields)
    return _files(form, field=field, max_files=max_pictures)


async def read_body(receive: Receive, content_length: str, max_bytes: int, received: Received) -> bytes:
    """Return a whole body. Raises UploadTooLarge while it reads, and ClientDisconnect."""
    if content_length.isdecimal() and int(content_length) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:  # chunked bodies declare nothing, and a declaration may lie
            raise _too_large(max_bytes)
        received(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _boundary(content_type: str, field: str) -> bytes | None:
    """Return the boundary of a multipart body, None for a raw one. Raises UnsupportedMediaType or MalformedRequest."""
    media_type = content_type.lower()
    if media_type.startswith(_FORM):
        return boundary_of(content_type)
    if media_type.startswith(_RAW):
        return None
    raise _unsupported(content_type, field)


def _picture(body: bytes, boundary: bytes | None, field: str, max_fields: int) -> bytes:
    if boundary is None:
        return body
    return _files(split_form(body, boundary, max_parts=1 + max_fields), field=field, max_files=1)[0].data


def _unsupported(content_type: str, field: str) -> UnsupportedMediaType:
    sent = f"The body's Content-Type is '{content_type}'" if content_type else "The request has no Content-Type"
    return UnsupportedMediaType(
        f"{sent}; send a picture as multipart/form-data in the field '{field}', or on /predict as a raw image/* body."
    )


def _too_large(max_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"The body is larger than {max_bytes:,} bytes. Send a smaller picture.")


def _files(form: list[Part], *, field: str, max_files: int) -> list[Part]:
    files = [part for part in form if part.name == field]
    if not files:
        names = ", ".join(f"'{part.name}'" for part in form) or "none"
        raise MalformedRequest(f"The form has no field '{field}' (it has: {names}).")
    if len(files) > max_files:
        raise MalformedRequest(
            f"The form has {len(files)} pictures in '{field}'; at most {max_files} are accepted here."
            + (" Send many to /predict/batch." if max_files == 1 else "")
        )
    return files
