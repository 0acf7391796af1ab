"""Requests from a random generator: mostly valid, each with few oddities of the kind that smuggles requests."""

import random
from collections.abc import Iterator, Sequence

from tests.mutation import damaged

_METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "BREW", "get", "G@T", "", "CONNECT", " POST", "PRI")
_TARGETS = (
    *("/", "/predict?top_k=1", "/predict?", "/predict?a=%00&b", "/predict#a", "//predict", "/pre%64ict", "*", "a:443"),
    *("http://a/predict", "HTTP://a:80/predict?x", "http://a", "http://a?x", "http://a#x", "http://u@a/", "http:///"),
    *("https://[::1]:1/predict", "ftp://a/", "predict", "", "/a b", "/\t", "/\0", "/\xff", "/{|}", "/predict\r"),
)
_VERSIONS = (
    *("HTTP/1.0", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/2", "HTTP/0.9", "HTTP/1.01", "HTTP/11.1", "http/1.1", ""),
    *("HTTP/1.1 ", " HTTP/1.1", "HTTP/1,1", "HTTP/1.", "XTTP/1.1", "HTTP/1.1\t"),
)
_LINE_ENDS = ("\n", "\r", "\r\r\n", "\n\r", " \r\n", "\t\r\n", "\0\r\n", "\r\n ", "\r\n\t", "\r\n\r\n", "", "\x0b\r\n")
_SEPARATORS = (":", ":  ", ":\t", ": \t ", " : ", "\t: ", "", " ", ":\r\n ", ":\0", ":\x0b", "=", "::")
_NAMES = ("Content_Length", "Content-Length\0", "Content Length", "X\xffY", "", "X(Y)", "Transfer_Encoding", "Host2")
_FIELDS: dict[str, Sequence[str]] = {
    "Host": ("a", "a:80", "", "a b", "a/b", "a,b", "[::1]", "u@a", "a:port", "\xe4"),
    "Content-Length": (
        *("0", "5", "+5", "-5", "0x5", "5 5", "5,5", "5, 5", "05", "0" * 30 + "5", "5\0", "5;", "", "5.0", "1_0"),
        *("\xb2", "4294967296", "18446744073709551615", "18446744073709551616", "99999999999999999999999"),
    ),
    "Transfer-Encoding": (
        *("chunked", "Chunked", "xchunked", "chunked ", "\tchunked", "\x0bchunked", "chunked, chunked", "chunked\0"),
        *("chunked, identity", "identity", "", ",chunked", "chunked;q=1", '"chunked"', "chun ked", "gzip, chunked"),
    ),
    "Connection": ("close", "keep-alive", "Close", "x,close ,y", "closed", "", "Upgrade", "content-length"),
    "Expect": ("100-continue", "100-Continue", "200-ok", "", "x, 100-continue"),
    "Upgrade": ("h2c", "websocket", ""),
    "Origin": ("http://a", "null"),
    "X-Request-ID": ("mine", "", "\x7f", "\xff", "a" * 200),
    "X-Other": ("", "a", "a\tb", "a\x01b", "a\x7fb", "\xff\xfe", "a\x0cb", ": ", "a" * 300, "a\r\n b", "a\rb", "a\nb"),
}
_SIZES = ("5 ", " 5", "0x5", "+5", "-5", "-0", "05", "0" * 17 + "5", "5;a", '5;a="b"', "5 ;a", "5;\0", "5\t", "", "g")
_CHUNK_ENDS = ("\n", "\r", "", "x\r\n", "\r\r\n", "\r\nx", " \r\n")
_TRAILERS = (
    *("X: y\r\n", "Content-Length: 5\r\n", "Content-Length:\xb45\r\n", "transfer-encoding: gzip\r\n", "no colon\r\n"),
    *(" folded\r\n", "X : y\r\n", "X: y\n", "X: \0\r\n", ":\r\n"),
)
_EMPTY_LINES = ("\r\n", "\r\n\r\n", "\n", "\r", " \r\n", "\0")
_SPECIAL = b"\r\n\t \0:;,\x0b\x7f\xff/0"


def generators(count: int) -> Iterator[random.Random]:
    """Yield that many random generators, the same ones every time."""
    for seed in range(count):
        yield random.Random(seed)  # noqa: S311 - a run is to be repeatable


def stream(rng: random.Random, usual_targets: Sequence[str] = ("/predict",)) -> bytes:
    """Return the bytes of one to three requests, as a client might send them on one connection."""
    oddity = rng.choice((0.0, 0.01, 0.03, 0.1))
    data = b"".join(_request(rng, oddity, rng.choice(usual_targets)) for _ in range(rng.choice((1, 1, 2, 3))))
    what = rng.random()
    if what < 0.1:
        return damaged(data, data, rng)
    if what < 0.3:
        at = rng.randrange(len(data))
        replaced = rng.choice((0, 1))
        return data[:at] + bytes([rng.choice(_SPECIAL)]) + data[at + replaced :]
    if what < 0.35:
        return data[: rng.randrange(1, len(data))]
    return data


def plain(rng: random.Random) -> bytes:
    """Return one plain request to `/predict`, or one that misses being that by a little."""
    oddity = rng.choice((0.0, 0.0, 0.02))
    body = b"x" * rng.choice((0, 0, 1, 5, 12))
    others = rng.choices(("X-Other", "Accept", "User-Agent", *_FIELDS), k=rng.choice((0, 0, 1, 2)))
    names = ["Host", "Content-Length", *others]
    rng.shuffle(names)
    values = {"Host": "a", "Content-Length": str(len(body)), "Accept": "*/*", "User-Agent": "curl/8"}
    lines = [_either(rng, oddity, "POST /predict HTTP/1.1", ("POST /predict?a=b HTTP/1.1", "POST /predict HTTP/1.0"))]
    for name in names:
        value = _either(rng, oddity, values.get(name) or rng.choice(_FIELDS[name]), _FIELDS.get(name, ("",)))
        lines.append(name + _either(rng, oddity, ": ", _SEPARATORS) + value)
    text = "".join(line + _either(rng, oddity, "\r\n", _LINE_ENDS) for line in [*lines, ""])
    data = text.encode("latin-1") + body
    if rng.random() < 0.3:
        at = rng.randrange(len(data))
        data = data[:at] + bytes([rng.choice(_SPECIAL)]) + data[at + rng.choice((0, 1)) :]
    return data if rng.random() < 0.9 else data + rng.choice((b"x", b"\r\n", b"POST /predict HTTP/1.1\r\n", data))


def pieces_of(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut the data into segments, as a network may."""
    most = rng.choice((1, 2, 7, 100, 10_000))
    pieces, position = [], 0
    while position < len(data):
        size = rng.randint(1, most)
        pieces.append(data[position : position + size])
        position += size
    return pieces


def _either(rng: random.Random, oddity: float, usual: str, odd: Sequence[str]) -> str:
    return rng.choice(odd) if rng.random() < oddity else usual


def _request(rng: random.Random, oddity: float, usual_target: str) -> bytes:
    body = rng.choice(("", "", "hello", "0\r\n\r\n", "GET / HTTP/1.1\r\nHost: b\r\n\r\n", "x" * 40))
    method = _either(rng, 3 * oddity, "POST", _METHODS)
    target = _either(rng, 3 * oddity, usual_target, _TARGETS)
    version = _either(rng, 2 * oddity, "HTTP/1.1", _VERSIONS)
    lines = [f"{method}{_either(rng, oddity, ' ', ('  ', '', chr(9)))}{target} {version}"]
    fields = [] if rng.random() < oddity else [("Host", "a")]
    if rng.random() < 0.4:
        fields.append(("Transfer-Encoding", "chunked"))
        sent = _chunked(rng, oddity, body)
    else:
        sent = body
        if body or rng.random() < 0.5:
            fields.append(("Content-Length", str(len(body) + rng.choice((1, -1)) * (rng.random() < oddity))))
    for name in rng.choices(list(_FIELDS), k=rng.choice((0, 0, 0, 1, 2))):
        repeats = name in {"Host", "Content-Length", "Transfer-Encoding"}
        if not repeats or rng.random() < 4 * oddity:
            fields.append((name, rng.choice(_FIELDS[name])))
    rng.shuffle(fields)
    for name, value in fields:
        written = _either(rng, oddity, rng.choice((name, name, name.lower(), name.upper())), _NAMES)
        lines.append(written + _either(rng, oddity, ": ", _SEPARATORS) + _either(rng, oddity, value, _FIELDS[name]))
    head = "".join(line + _either(rng, oddity, "\r\n", _LINE_ENDS) for line in lines)
    before = _either(rng, oddity, "", _EMPTY_LINES)
    return (before + head + _either(rng, oddity, "\r\n", _LINE_ENDS) + sent).encode("latin-1")


def _chunked(rng: random.Random, oddity: float, body: str) -> str:
    text, position = "", 0
    while position < len(body):
        size = rng.randint(1, len(body) - position)
        said = size + (rng.choice((1, -1)) if rng.random() < oddity else 0)
        text += _either(rng, oddity, rng.choice((f"{said:x}", f"{said:X}", f"0{said:x}")), _SIZES)
        text += _either(rng, oddity, "\r\n", _CHUNK_ENDS) + body[position : position + size]
        text += _either(rng, oddity, "\r\n", _CHUNK_ENDS)
        position += size
    text += _either(rng, oddity, "0", _SIZES) + _either(rng, oddity, "\r\n", _CHUNK_ENDS)
    return text + _either(rng, 5 * oddity, "", _TRAILERS) + _either(rng, oddity, "\r\n", _CHUNK_ENDS)
