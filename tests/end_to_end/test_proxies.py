"""nginx and HAProxy in front of the real service with two workers: good, oversized and broken uploads, all mixed.

Every answer must be the one of a table. With -s each configuration prints what it answered and how long it took;
--uploads says how many uploads each gets.
"""

import gzip
import json
import random
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx
import pytest

from tests.conftest import FindProgram
from tests.end_to_end.callers import Connection, ConnectionBroke, address_of, free_port, total, until
from tests.end_to_end.draining import DrainingService
from tests.oddities import pillow

CONNECTIONS = 8
HANGS_AFTER_S = 20
MAX_UPLOAD_BYTES = 1_000_000
OVERSIZED = bytes(4 * MAX_UPLOAD_BYTES)
CHUNK_BYTES = 65_536
FORM = "multipart/form-data; boundary=xyz"


# The proxies


@dataclass(frozen=True)
class Proxy:
    """A configuration: `front` and `back` are what it adds to the default one, before the service and beside it."""

    program: Literal["nginx", "haproxy"]
    name: str
    location: str = "location / { proxy_pass http://SERVICE; }"
    upstream: str = ""
    options: str = ""
    prefix: str = ""
    drops_rest: bool = False
    """It closes a connection whose upload was answered before it was whole, and does not say so."""

    def __str__(self) -> str:
        return f"{self.program}, {self.name}"


# Debian's own configurations, with paths and ports of the test's, and a limit on bodies that is not nginx's 1 MB: the
# service's own is looked at here.
_NGINX = """
daemon off;
user root;
worker_processes auto;
pid FOLDER/nginx.pid;
error_log FOLDER/error.log;
events { worker_connections 768; }
http {
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    access_log FOLDER/access.log;
    gzip on;
    client_body_temp_path FOLDER/bodies;
    proxy_temp_path FOLDER/proxied;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    client_max_body_size 100m;
    UPSTREAM
    server {
        listen 127.0.0.1:PORT;
        LOCATION
    }
}
"""
_HAPROXY = """
defaults
    mode http
    option dontlognull
    timeout connect 5000
    timeout client 50000
    timeout server 50000
listen service
    bind 127.0.0.1:PORT
    OPTIONS
    server service SERVICE
"""

PROXIES = [
    Proxy("nginx", "defaults"),
    Proxy(
        "nginx",
        "no request buffering",
        location="location / { proxy_pass http://SERVICE; proxy_request_buffering off; proxy_http_version 1.1; }",
        drops_rest=True,
    ),
    Proxy("nginx", "path prefix", location="location /api/ { proxy_pass http://SERVICE/; }", prefix="/api"),
    Proxy(
        "nginx",
        "keep-alive upstream",
        upstream="upstream service { server SERVICE; keepalive 32; }",
        location='location / { proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; }',
    ),
    Proxy(
        "nginx",
        "keep-alive upstream, no request buffering",
        upstream="upstream service { server SERVICE; keepalive 32; }",
        location='location / { proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";'
        " proxy_request_buffering off; }",
        drops_rest=True,
    ),
    Proxy("haproxy", "defaults"),
    Proxy("haproxy", "request buffering", options="option http-buffer-request"),
    Proxy("haproxy", "path prefix", options=r"http-request replace-path /api(/.*)? \1", prefix="/api"),
    Proxy("haproxy", "keep-alive upstream", options="http-reuse always"),
]


@contextmanager
def running(proxy: Proxy, program: str, service: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Run a proxy in front of a service, and yield its address."""
    port = free_port()
    template = _NGINX if proxy.program == "nginx" else _HAPROXY
    parts = {
        "LOCATION": proxy.location,
        "UPSTREAM": proxy.upstream,
        "OPTIONS": proxy.options,
        "SERVICE": service.removeprefix("http://"),
        "FOLDER": str(folder),
        "PORT": str(port),
    }
    for name, value in parts.items():
        template = template.replace(name, value)
    file = folder / "proxy.conf"
    file.write_text(template)
    options: list[str | Path] = ["-db", "-f", file]
    if proxy.program == "nginx":
        options = ["-p", folder, "-c", file, "-e", folder / "error.log"]
    with (
        (folder / "output.log").open("wb") as output,
        subprocess.Popen([program, *options], stdout=output, stderr=output) as process,
    ):
        try:
            until(lambda: process.poll() is not None or accepts(port))
            assert process.poll() is None, (folder / "output.log").read_text()
            yield "127.0.0.1", port
        finally:
            process.terminate()
            process.wait(30)


def accepts(port: int) -> bool:
    try:
        Connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


# The table of uploads and answers


@dataclass(frozen=True)
class Upload:
    """What a client sends and must get: a status with the label, the error code, or the proxy's own page.

    `head` and `body` go out at once, or the body when 100 Continue has come (`expects`). `ends` is a client that closes
    its side after them. `of` has the answers of proxies that answer by themselves, by program or by configuration.
    """

    name: str
    head: bytes
    body: bytes
    answer: str
    expects: bool = False
    ends: bool = False
    of: dict[str, str] = field(default_factory=dict)

    def expected(self, proxy: Proxy | None) -> str:
        return self.answer if proxy is None else self.of.get(str(proxy), self.of.get(proxy.program, self.answer))


OWN_400 = {"nginx": "400 of the proxy", "haproxy": "400 of the proxy"}
CUT_OFF = {"nginx": "closed", "haproxy": "closed"}
TOO_LARGE = "413 upload_too_large"
MALFORMED = "400 malformed_request"


class Uploads:
    """Makes uploads for a service below a path prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def post(
        self, name: str, body: bytes, answer: str, *headers: str, path: str = "/predict", kind: str = "image/png"
    ) -> Upload:
        lines = [f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
        expects = any(header.startswith("Expect") for header in headers)
        return Upload(name, self._head("POST", path, *lines), body, answer, expects=expects)

    def chunked(self, name: str, body: bytes, answer: str, *, path: str = "/predict") -> Upload:
        pieces = [body[at : at + CHUNK_BYTES] for at in range(0, len(body), CHUNK_BYTES)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        head = self._head("POST", path, "Content-Type: image/png", "Transfer-Encoding: chunked")
        return Upload(name, head, framed, answer)

    def get(self, name: str, path: str, answer: str, *, method: str = "GET") -> Upload:
        return Upload(name, self._head(method, path), b"", answer)

    def raw(self, name: str, *lines: str, answer: str = MALFORMED, body: str = "", **of: str) -> Upload:
        """What is no proper request: nothing can be sent after it, and most proxies answer it by themselves."""
        text = "\r\n".join([*lines, "", body]).replace("/predict", f"{self._prefix}/predict")
        return Upload(name, text.encode("latin-1"), b"", answer, of={**OWN_400, **of})

    def _head(self, method: str, path: str, *lines: str) -> bytes:
        return "\r\n".join([f"{method} {self._prefix}{path} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def form(picture: bytes, boundary: bytes = b"xyz") -> bytes:
    head = b'--%b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' % boundary
    return head + picture + b"\r\n--%b--\r\n" % boundary


def good(make: Uploads, picture: bytes, label: str) -> list[Upload]:
    instances = json.dumps({"instances": [{"b64": b64encode(picture).decode()}]}).encode()
    old = f"POST {make._prefix}/predict HTTP/1.0\r\nContent-Length: {len(picture)}\r\nContent-Type: image/png\r\n\r\n"
    return [
        make.post("a picture", picture, f"200 {label}"),
        make.post("a picture with a query", picture, f"200 {label}", path="/predict?top_k=1"),
        make.post("a form", form(picture), f"200 {label}", kind=FORM),
        make.chunked("a chunked picture", picture, f"200 {label}"),
        make.post("a picture with Expect", picture, f"200 {label}", "Expect: 100-continue"),
        Upload("a picture in HTTP/1.0", old.encode(), picture, f"200 {label}"),
        make.post(
            "gzip",
            gzip.compress(instances),
            "200 predictions",
            "Content-Encoding: gzip",
            path="/v1/models/mnist:predict",
            kind="application/json",
        ),
        make.get("HEAD", "/models", "200", method="HEAD"),
        make.get("GET", "/health/live", "200 status"),
    ]


def oversized(make: Uploads) -> list[Upload]:
    return [
        make.post("oversized", OVERSIZED, TOO_LARGE),
        make.post("an oversized form", form(OVERSIZED), TOO_LARGE, kind=FORM),
        make.chunked("oversized in chunks", OVERSIZED, TOO_LARGE),
        make.post("oversized with Expect", OVERSIZED, TOO_LARGE, "Expect: 100-continue"),
        make.post("oversized text", OVERSIZED, "415 unsupported_media_type", kind="text/plain"),
        make.post("oversized to no such path", OVERSIZED, "404 not_found", path="/nowhere"),
        make.chunked("oversized chunks to no such path", OVERSIZED, "404 not_found", path="/nowhere"),
        make.post("oversized to what is only got", OVERSIZED, "405 method_not_allowed", path="/models"),
        make.post("oversized to no such model", OVERSIZED, "404 model_not_found", path="/predict?model=none"),
    ]


def broken(make: Uploads, picture: bytes) -> list[Upload]:
    large = pillow(kind="PNG")[:-20] + random.Random(7).randbytes(300_000)  # noqa: S311
    whole = form(picture)
    return [
        make.post("half a picture", picture[: len(picture) // 2], "422 undecodable_image"),
        make.post("no picture", b"not a picture", "415 unsupported_format"),
        make.post("nothing", b"", "422 undecodable_image"),
        make.post("a large broken picture", large, "422 undecodable_image"),
        make.post("half a form", whole[:-20], MALFORMED, kind=FORM),
        make.post("a form without its boundary", whole, MALFORMED, kind="multipart/form-data"),
        make.post("text", picture, "415 unsupported_media_type", kind="text/plain"),
        make.post(
            "a compressed picture", gzip.compress(picture), "415 unsupported_media_type", "Content-Encoding: gzip"
        ),
        make.post("no such path", picture, "404 not_found", path="/nowhere"),
        make.post("no such model", picture, "404 model_not_found", path="/predict?model=none"),
        make.get("HEAD of what is only posted", "/predict", "405", method="HEAD"),
    ]


def bad_heads(make: Uploads) -> list[Upload]:
    post, host, four = "POST /predict HTTP/1.1", "Host: a", "Content-Length: 4"
    return [
        make.raw("no Host", post, four, body="1234", haproxy=MALFORMED),
        make.raw("two lengths", post, host, four, "Content-Length: 5", body="12345"),
        make.raw("a negative length", post, host, "Content-Length: -4", body="1234"),
        make.raw("no number as length", post, host, "Content-Length: 0x4", body="1234"),
        make.raw(
            "length and chunks",
            post,
            host,
            four,
            "Transfer-Encoding: chunked",
            body="0\r\n\r\n",
            haproxy="415 unsupported_media_type",
        ),
        make.raw("an unknown coding", post, host, "Transfer-Encoding: rot13", body="1234", nginx="501 of the proxy"),
        make.raw("a broken chunk", post, host, "Transfer-Encoding: chunked", body="zz\r\n1234\r\n0\r\n\r\n"),
        make.raw("a space in a name", post, host, "Content-Length : 4", body="1234"),
        make.raw("a control character", post, host, "X-Name: a\0b", four, body="1234", haproxy=MALFORMED),
        make.raw("no method", "P\1ST /predict HTTP/1.1", host, four, body="1234"),
        make.raw("no HTTP", "hello"),
        make.raw("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\0" * 64),
        make.raw(
            "a long head", post, host, f"X-Long: {'a' * 40_000}", four, body="1234", answer="431 headers_too_large"
        ),
    ]


def cut_off(make: Uploads, picture: bytes) -> list[Upload]:
    """Clients that close their side before their request is whole."""
    gone = "400 client_disconnected"
    whole = [
        make.post("cut off", picture, gone),
        make.chunked("cut off in chunks", picture, gone),
        make.post("a large one cut off", bytes(900_000), gone),
    ]
    return [
        Upload(upload.name, upload.head, upload.body[: len(upload.body) // 2], upload.answer, ends=True, of=CUT_OFF)
        for upload in whole
    ]


def mixed(make: Uploads, pictures: list[tuple[Path, str]], count: int) -> list[Upload]:
    """Return that many uploads, half of them good, in an order that is random and the same every time."""
    rng = random.Random(7)  # noqa: S311
    encoded = [(path.read_bytes(), label) for path, label in pictures]
    groups: list[list[Upload]] = [
        oversized(make),
        broken(make, encoded[0][0]),
        bad_heads(make),
        cut_off(make, encoded[0][0]),
    ]
    of_pictures = [good(make, picture, label) for picture, label in encoded]
    shares = [4, 4, 3, 1]
    bad = [upload for group, share in zip(groups, shares, strict=True) for _ in range(share) for upload in group]
    found = [rng.choice(rng.choice(of_pictures)) for _ in range(count // 2)]
    found += [bad[index % len(bad)] for index in range(count - len(found))]
    rng.shuffle(found)
    return found


# Asking

NOT_SENT = "not sent"
HANGS = "hangs"


def said(status: int, body: bytes) -> str:
    if not body:
        return f"{status}"
    try:
        answer = json.loads(body)
    except ValueError:
        return f"{status} of the proxy"
    return f"{status} {answer.get('label') or answer.get('code') or next(iter(answer))}"


def ask(connection: Connection, upload: Upload) -> str:
    """Send an upload and return what came: an answer, or how the connection broke."""
    try:
        if upload.expects:
            status, body = connection.ask(upload.head)
            if status == 100:
                status, body = connection.ask(upload.body)
            else:
                connection.closes = True  # whoever is to get the body is not to know that it does not come
        else:
            connection.send(upload.head + upload.body)
            if upload.ends:
                connection.end_sending()
            status, body = connection.answer(to_head=upload.head.startswith(b"HEAD"))
    except ConnectionBroke as exc:
        connection.closes = True
        if isinstance(exc.__cause__, TimeoutError):
            return HANGS
        gone = str(exc) == "no answer" or isinstance(exc.__cause__, ConnectionResetError)
        return "closed" if upload.ends and gone else f"broke: {exc}"
    connection.closes |= upload.ends
    return said(status, body)


def ask_all(address: tuple[str, int], uploads: list[Upload], *, reuse_after_oversized: bool = True) -> list[str]:
    """Send the uploads over a few connections, kept while they can be, and return what came, in order.

    One that hangs is the last: those after it are not sent.
    """
    answers = [NOT_SENT] * len(uploads)
    places = iter(range(len(uploads)))

    def work() -> None:
        connection = None
        for place in places:
            connection = connection or Connection(address, HANGS_AFTER_S)
            answers[place] = ask(connection, uploads[place])
            if answers[place] == HANGS:
                deque(places, maxlen=0)
            if connection.closes or (len(uploads[place].body) > MAX_UPLOAD_BYTES and not reuse_after_oversized):
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(work) for _ in range(CONNECTIONS)]:
            done.result()
    return answers


@pytest.fixture(scope="module")
def service(repository: Path, mnist_pictures: list[tuple[Path, str]]) -> Iterator[DrainingService]:
    settings = {"model": "mnist", "workers": 2, "max_upload_bytes": MAX_UPLOAD_BYTES, "request_timeout_s": 60}
    service = DrainingService(repository / "model_store", **settings)
    workers = service.children
    # What a worker takes at once follows from the pictures that it has answered. Overload is not looked at here.
    for path, label in mnist_pictures:
        answer = httpx.post(f"{service.url}/predict", content=path.read_bytes(), headers={"content-type": "image/png"})
        assert answer.json()["label"] == label
    yield service
    assert service.children == workers
    assert service.stop() == 0
    assert service.stray == []


@pytest.mark.parametrize("proxy", [None, *PROXIES], ids=lambda proxy: str(proxy or "no proxy"))
def test_every_upload_through_a_proxy_gets_the_answer_of_the_table(
    service: DrainingService,
    program: FindProgram,
    mnist_pictures: list[tuple[Path, str]],
    pytestconfig: pytest.Config,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    proxy: Proxy | None,
) -> None:
    uploads = mixed(Uploads(proxy.prefix if proxy else ""), mnist_pictures, pytestconfig.getoption("--uploads"))
    began = time.monotonic()
    if proxy is None:
        answers = ask_all(address_of(service.url), uploads)
    else:
        with running(proxy, program(proxy.program), service.url, tmp_path) as address:
            answers = ask_all(address, uploads, reuse_after_oversized=not proxy.drops_rest)
    seconds = time.monotonic() - began

    wrong = Counter(
        (upload.name, upload.expected(proxy), answer)
        for upload, answer in zip(uploads, answers, strict=True)
        if answer not in {upload.expected(proxy), NOT_SENT}
    )
    if wrong:
        lines = [f"{count} × {name}: {got!r} for {due!r}" for (name, due, got), count in sorted(wrong.items())]
        pytest.fail("\n".join(lines), pytrace=False)
    until(lambda: holds_nothing(service))
    assert httpx.get(f"{service.url}/health").json()["workers"] == {"configured": 2, "ready": 2}
    figures = f"{len(uploads)} uploads in {seconds:.1f} s: {dict(Counter(answer[:3] for answer in answers))}"
    record_property("uploads", figures)
    sys.stdout.write(f"{proxy or 'no proxy'}: {figures}\n")


def holds_nothing(service: DrainingService) -> bool:
    page = httpx.get(f"{service.url}/metrics").text
    return total(page, "imageclass_pending_pictures") == total(page, "imageclass_pending_bytes") == 0
