"""Requests of every kind as bytes, with the answers they may get; and ways to cut them up and to spoil them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

MAX_UPLOAD_BYTES = 50_000
MAX_HEADER_BYTES = 2048

_SMUGGLED = b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Request-ID: never\r\n\r\n"
"""A request inside of a body: nobody asks it."""
_FORM = "multipart/form-data; boundary=xyz"
_UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
_EXTRA = ("Accept: */*", "User-Agent: machine", "X-Empty:", "x-TABS: \ta\tb", "Cookie: a=b; c=d", "X-Text: \xe9\xff")


@dataclass(frozen=True, slots=True)
class Asked:
    """A valid request, and how it may be answered."""

    data: bytes
    head_size: int
    """Bytes before the body."""
    identity: str | None
    """Its X-Request-ID; None if the service has to make one."""
    statuses: frozenset[int]
    is_head: bool = False
    begins: bytes = b""
    """With what the body of its 200 begins."""
    closes: bool | None = False
    """Whether the connection ends by its answer; None if the service may choose."""
    expects_continue: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    data: bytes
    label: str


Kind = Callable[[Random, str], Asked]
"""Makes a request with that id."""


class Requests:
    """Makes requests. `pictures` are small ones, with the labels that the service gives them."""

    def __init__(self, pictures: Sequence[Picture], model: str) -> None:
        self._pictures = pictures
        self._model = model
        self._kinds: list[Kind] = [
            *[self._picture] * 10,
            *[self._plain_picture] * 5,
            *[self._form] * 2,
            *[self._get] * 5,
            *[self._batch] * 1,
            *[self._rejected] * 4,
            *[self._smuggling] * 1,
            *[self.large_body] * 1,
            *[self._with_expect] * 1,
            *[self._last] * 1,
        ]

    def any(self, rng: Random, identity: str) -> Asked:
        return rng.choice(self._kinds)(rng, identity)

    def large_answer(self, rng: Random, identity: str) -> Asked:
        return _request("GET", rng.choice(("/openapi.json", "/docs/swagger-ui-bundle.js")), identity, 200)

    def _picture(self, rng: Random, identity: str) -> Asked:
        picture = rng.choice(self._pictures)
        query = rng.choice(("", "", "?top_k=3", f"?model={self._model}", f"?top_k=2&model={self._model}", "?a=b"))
        headers = [rng.choice(("Content-Type: image/png", "content-type: application/octet-stream"))]
        if not rng.randrange(8):
            headers.append("X-Request-Timeout: 60")
        return _post(rng, f"/predict{query}", identity, picture.data, headers, 200, begins=_label(picture))

    def _plain_picture(self, rng: Random, _: str) -> Asked:
        """A request that may be rejected under overload before it is parsed."""
        picture = rng.choice(self._pictures)
        lines = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: {len(picture.data)}"
        head = f"{lines}\r\n\r\n".encode()
        return Asked(head + picture.data, len(head), None, frozenset({200, 503}), begins=_label(picture))

    def _form(self, rng: Random, identity: str) -> Asked:
        picture = rng.choice(self._pictures)
        body = _form_of([picture.data], "file")
        return _post(rng, "/predict", identity, body, [f"Content-Type: {_FORM}"], 200, begins=_label(picture))

    def _batch(self, rng: Random, identity: str) -> Asked:
        pictures = [rng.choice(self._pictures) for _ in range(rng.randint(1, 4))]
        body = _form_of([picture.data for picture in pictures], "files")
        return _post(rng, "/predict/batch", identity, body, [f"Content-Type: {_FORM}"], 200, begins=b'{"predictions":[')

    def _get(self, rng: Random, identity: str) -> Asked:
        path, begins = rng.choice(
            (
                ("/health/live", b'{"status":"live"}'),
                ("/health", b"{"),
                ("/models", b"{"),
                ("http://a/health/live", b'{"status":"live"}'),
                ("/docs/start.js", b""),
            )
        )
        headers = rng.choice(((), (), (), _UPGRADE))
        if not rng.randrange(4):
            return _request("HEAD", path, identity, 200, headers=headers)
        if not rng.randrange(6):
            return _post(rng, path, identity, b"a body that nobody wants", [*headers], 200, begins=begins, method="GET")
        empty_lines = rng.choice((b"", b"", b"", b"\r\n", b"\r\n\r\n"))
        return _request("GET", path, identity, 200, headers=headers, begins=begins, empty_lines=empty_lines)

    def _rejected(self, rng: Random, identity: str) -> Asked:
        """A request that is valid HTTP, and is answered by an error."""
        picture = rng.choice(self._pictures).data
        method, target, body, content_type, status = rng.choice(
            (
                ("POST", "/predict", b"no picture", "image/png", 415),
                ("POST", "/predict", picture[:60], "image/png", 422),
                ("POST", "/predict", picture, "text/plain", 415),
                ("POST", "/predict", b"no form", _FORM, 400),
                ("POST", "/predict?top_k=0", picture, "image/png", 400),
                ("POST", "/predict?model=none", picture, "image/png", 404),
                ("POST", "/nothing", picture, "image/png", 404),
                ("PUT", "/predict", picture, "image/png", 405),
                ("DELETE", "/models", b"", "image/png", 405),
            )
        )
        return _post(rng, target, identity, body, [f"Content-Type: {content_type}"], status, method=method)

    def _smuggling(self, rng: Random, identity: str) -> Asked:
        target, status = rng.choice((("/predict", 415), ("/nothing", 404)))
        body = _SMUGGLED * rng.randint(1, 3)
        return _post(rng, target, identity, body, ["Content-Type: image/png", *rng.choice(((), _UPGRADE))], status)

    def large_body(self, rng: Random, identity: str) -> Asked:
        target, status = rng.choice((("/predict", 413), ("/predict", 413), ("/nothing", 404)))
        size = rng.choice((MAX_UPLOAD_BYTES + 1, MAX_UPLOAD_BYTES + 1, 200_000))
        body = (_SMUGGLED * (size // len(_SMUGGLED) + 1))[:size]
        return _post(rng, target, identity, body, ["Content-Type: image/png"], status)

    def _with_expect(self, rng: Random, identity: str) -> Asked:
        picture = rng.choice(self._pictures)
        large = bytes(MAX_UPLOAD_BYTES + 1)
        accepted = (picture.data, "/predict", 200)
        rejected = rng.choice(((large, "/predict", 413), (large, "/nothing", 404)))
        body, target, status = rng.choice((accepted, rejected))
        headers = ["Content-Type: image/png", "Expect: 100-continue"]
        begins = _label(picture) if status == 200 else b""
        return _post(rng, target, identity, body, headers, status, begins=begins, closes=None, expects_continue=True)

    def _last(self, rng: Random, identity: str) -> Asked:
        """A request that ends its connection."""
        picture = rng.choice(self._pictures)
        if rng.randrange(2):
            headers = ["Connection: close", "Content-Type: image/png"]
            return _post(rng, "/predict", identity, picture.data, headers, 200, begins=_label(picture), closes=True)
        head = f"GET /health/live HTTP/1.0\r\nX-Request-ID: {identity}\r\n\r\n".encode()
        return Asked(head, len(head), identity, frozenset({200}), begins=b'{"status":"live"}', closes=True)


def _label(picture: Picture) -> bytes:
    return b'{"label":"%b"' % picture.label.encode()


def _form_of(pictures: Sequence[bytes], field: str) -> bytes:
    head = f'--xyz\r\nContent-Disposition: form-data; name="{field}"; filename="a.png"\r\n\r\n'.encode()
    return b"".join(head + picture + b"\r\n" for picture in pictures) + b"--xyz--\r\n"


def _request(
    method: str,
    target: str,
    identity: str,
    status: int,
    *,
    headers: Sequence[str] = (),
    body: bytes = b"",
    begins: bytes = b"",
    closes: bool | None = False,
    expects_continue: bool = False,
    empty_lines: bytes = b"",
) -> Asked:
    lines = (f"{method} {target} HTTP/1.1", "Host: a", f"X-Request-ID: {identity}", *headers, "", "")
    head = empty_lines + "\r\n".join(lines).encode("latin-1")
    return Asked(
        head + body,
        len(head),
        identity,
        frozenset({status, 503}) if target.startswith("/predict") else frozenset({status}),
        is_head=method == "HEAD",
        begins=begins,
        closes=closes,
        expects_continue=expects_continue,
    )


def _post(
    rng: Random,
    target: str,
    identity: str,
    body: bytes,
    headers: Sequence[str],
    status: int,
    *,
    method: str = "POST",
    begins: bytes = b"",
    closes: bool | None = False,
    expects_continue: bool = False,
) -> Asked:
    if rng.randrange(5):
        framing = f"Content-Length: {len(body)}"
    else:
        framing, body = "Transfer-Encoding: chunked", _in_chunks(rng, body)
    extra = [rng.choice(_EXTRA)] if not rng.randrange(4) else []
    return _request(
        method,
        target,
        identity,
        status,
        headers=[*extra, *headers, framing],
        body=body,
        begins=begins,
        closes=closes,
        expects_continue=expects_continue,
    )


def _in_chunks(rng: Random, body: bytes) -> bytes:
    pieces, position = [], 0
    while position < len(body):
        size = rng.choice((1, 7, 100, 1000, 30_000))
        piece = body[position : position + size]
        extension = b"" if rng.randrange(4) else b";name=value"
        pieces.append(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece))
        position += size
        if size < 100 and not rng.randrange(3):  # not all of a large body in small ones
            piece = body[position:]
            if piece:
                pieces.append(b"%X\r\n%b\r\n" % (len(piece), piece))
            break
    trailer = b"" if rng.randrange(4) else b"X-Trailer: a\r\n"
    return b"".join(pieces) + b"0\r\n" + trailer + b"\r\n"


# What is no request

MALFORMED = (
    b"\0\0\0\0",
    b"hello\r\n\r\n",
    b"GET /health/live HTTP/1.1\nHost: a\n\n",
    b"GET /health/live HTTP/1.1\r\n\r\n",
    b"GET /health/live HTTP/2.0\r\nHost: a\r\n\r\n",
    b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
    b"GET /health/live HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: " + b"a" * MAX_HEADER_BYTES,
    b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
    b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
    b"POST /nothing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
    b"POST /nothing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    b"POST /nothing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n broken\r\n\r\n",
)


def spoil(rng: Random, request: Asked) -> bytes:
    """Return the request with something changed in it, for the worse or not, or something that is none at all."""
    data, way = request.data, rng.randrange(8)
    if way == 0:
        return rng.choice(MALFORMED)
    if way == 1:  # a header twice
        lines = data[: request.head_size].split(b"\r\n")
        index = rng.randrange(1, len(lines))
        return b"\r\n".join([*lines[:index], *lines[index - 1 :]]) + data[request.head_size :]
    if way == 2:  # another length
        return re.sub(rb"(?i)(content-length:[ ]*)\d+", rb"\g<1>%d" % rng.choice((0, 1, 10, 60_000)), data, count=1)
    where = min(len(data), request.head_size + 40 if rng.randrange(2) else request.head_size)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        index = rng.randrange(where)
        if way in {3, 4}:
            changed[index] ^= 1 << rng.randrange(8)
        elif way == 5:
            changed[index : index + 1] = b""
        elif way == 6:
            changed[index:index] = rng.choice((b"\r", b"\n", b"\r\n", b" ", b"\0", b":", b"\t", b"a", b"\x80"))
        else:
            changed[index : index + 1] = rng.choice((b"\r", b"\n", b"\r\n", b" ", b"\0", b":", b"0", b"f"))
        where = min(where, len(changed))
    return bytes(changed)


def cut(rng: Random, data: bytes) -> list[bytes]:
    """Return the data in pieces."""
    way = rng.randrange(12)
    if way < 9 or len(data) < 2:
        return [data]
    if way == 9:
        ends = sorted(rng.randrange(1, len(data)) for _ in range(rng.randint(1, 4)))
    elif way == 10:  # amid line breaks
        ends = [found.end() for found in re.finditer(rb"\r", data[:2000])][: rng.randint(1, 10)]
    else:  # byte by byte
        start = rng.randrange(len(data))
        ends = list(range(start, min(len(data), start + rng.choice((5, 10, 80)))))
    pieces = [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    return [piece for piece in pieces if piece]
