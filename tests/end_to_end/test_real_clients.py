"""Public HTTP clients, unmodified and as they are by default, against the real service with two workers.

tests/clients has a program for Java, node and Go each, which prints what it got for every case of a table.
"""

import gzip
import json
import os
import shutil
import socket
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.conftest import FindProgram
from tests.end_to_end.callers import address_of
from tests.end_to_end.draining import DrainingService

TIMEOUT_S = 60
OVERSIZED_BYTES = 16_000_000

PICTURE = "200 7"
TOO_LARGE = "413 upload_too_large"
UPLOADS = {
    "a picture": PICTURE,
    "the next picture": PICTURE,
    "a form": PICTURE,
    "a stream": PICTURE,
    "100 at once": PICTURE,
    "HEAD": "200 GET's length",
    "no such path": "404 not_found",
    "oversized": TOO_LARGE,
    "an oversized stream": TOO_LARGE,
    "oversized to no such path": "404 not_found",
    "oversized text": "415 unsupported_media_type",
    "a picture after all that": PICTURE,
}
SIMPLE_UPLOADS = {
    name: UPLOADS[name]
    for name in ("a picture", "a stream", "oversized", "an oversized stream", "a picture after all that")
}


@pytest.fixture(scope="module")
def service(repository: Path) -> Iterator[DrainingService]:
    service = DrainingService(
        repository / "model_store", model="mnist", workers=2, max_upload_bytes=OVERSIZED_BYTES // 2
    )
    workers = service.children
    yield service
    assert service.children == workers
    assert service.stop() == 0
    assert service.stray == []


@pytest.fixture(scope="module")
def seven(data_folder: Path) -> Path:
    return data_folder / "7-00000.png"


@pytest.fixture(scope="module")
def oversized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("oversized") / "large.png"
    file.write_bytes(bytes(OVERSIZED_BYTES))
    return file


def run(
    *command: str | Path, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=stdin, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False)


def table(*command: str | Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    """Run a program of tests/clients, and return what each of its clients got for each case."""
    done = run(*command, environment=environment)
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.partition("\t") for line in done.stdout.decode().splitlines()]
    return {case: answer for case, _, answer in lines}


def of_each(clients: dict[str, dict[str, str]]) -> dict[str, str]:
    return {f"{client}: {case}": answer for client, cases in clients.items() for case, answer in cases.items()}


def said(status: int | str, body: bytes) -> str:
    """Return a status with the label or the error code that came with it."""
    answer = json.loads(body)
    return f"{status} {answer.get('label') or answer.get('code')}"


def test_javas_clients_get_every_answer_also_when_they_ask_for_http_2(
    service: DrainingService, program: FindProgram, repository: Path, seven: Path
) -> None:
    program("javac")  # compiles the source that `java` is given
    found = table("java", repository / "tests" / "clients" / "JavaClients.java", service.url, seven)
    with_expect = {**UPLOADS, "Expect": PICTURE}
    clients = {"HttpClient": with_expect, "HttpClient 1.1": with_expect, "HttpURLConnection": SIMPLE_UPLOADS}
    assert found == of_each(clients)


def test_nodes_fetch_and_undici_and_axios_get_every_answer(
    service: DrainingService, node_clients: Path, program: FindProgram, seven: Path
) -> None:
    found = table(program("node"), node_clients / "clients.js", service.url, seven)
    assert found == of_each({"fetch": UPLOADS, "undici": UPLOADS, "axios": UPLOADS})


def test_gos_client_gets_every_answer(service: DrainingService, repository: Path, seven: Path, tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no go")
    source = repository / "tests" / "clients" / "go_client.go"
    found = table(go, "run", source, service.url, seven, environment={**os.environ, "GOCACHE": str(tmp_path)})
    assert found == of_each({"net/http": {**UPLOADS, "Expect": PICTURE, "oversized with Expect": TOO_LARGE}})


@dataclass(frozen=True)
class Curl:
    """What curl got: the last answer, and what it says of all its transfers."""

    status: int
    headers: dict[str, str]
    body: bytes
    uploaded: int
    connects: list[int]
    error: str | None

    @property
    def said(self) -> str:
        return said(self.status, self.body)


AskByCurl = Callable[..., Curl]


@pytest.fixture
def curl(service: DrainingService, program: FindProgram, tmp_path: Path) -> AskByCurl:
    """Return the function that calls curl with options and paths; of several paths, the last one's answer counts."""
    body = tmp_path / "body"

    def ask(*options: str | Path, paths: tuple[str, ...] = ("/predict",), stdin: bytes = b"") -> Curl:
        body.write_bytes(b"")
        common = ["--silent", "--max-time", str(TIMEOUT_S // 2), "--write-out", ",[%{json},%{header_json}]"]
        urls = [argument for path in paths for argument in ("--output", body, f"{service.url}{path}")]
        done = run(program("curl"), *common, *options, *urls, stdin=stdin)
        transfers = json.loads(f"[{done.stdout.decode().removeprefix(',')}]")
        last, headers = transfers[-1]
        return Curl(
            last["http_code"],
            {name: values[0] for name, values in headers.items()},
            body.read_bytes(),
            last["size_upload"],
            [transfer["num_connects"] for transfer, _ in transfers],
            last["errormsg"],
        )

    return ask


@pytest.mark.parametrize(
    "version",
    [["--http1.0"], ["--http1.0", "-HHost:"], ["--http1.1"], ["--http2"], ["--tr-encoding"], ["--no-keepalive"]],
    ids=" ".join,
)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_curl_gets_its_answer_in_every_version_of_http(
    curl: AskByCurl, seven: Path, oversized: Path, version: list[str], chunked: bool
) -> None:
    framing = ["-HTransfer-Encoding: chunked"] if chunked and "--http1.0" not in version else []
    raw = [*version, *framing, "-HContent-Type: image/png"]
    assert curl(*raw, "--data-binary", f"@{seven}").said == PICTURE
    assert curl(*version, *framing, "-F", f"file=@{seven}").said == PICTURE
    large = curl(*raw, "--data-binary", f"@{oversized}")
    assert (large.said, large.error) == (TOO_LARGE, None)
    lost = curl(*raw, "--data-binary", f"@{oversized}", paths=("/nowhere",))
    assert (lost.said, lost.error) == ("404 not_found", None)


def test_curl_in_http_1_0_is_told_that_the_connection_closes(curl: AskByCurl, seven: Path) -> None:
    answer = curl("--http1.0", "-HContent-Type: image/png", "--data-binary", f"@{seven}")
    assert answer.headers["connection"].lower() == "close"


def test_curl_without_a_host_is_rejected_in_http_1_1(curl: AskByCurl) -> None:
    assert curl("--http1.1", "-HHost:", paths=("/health",)).said == "400 malformed_request"


def test_curl_that_knows_http_2_to_be_there_is_told_at_once_that_it_is_not(
    curl: AskByCurl, service: DrainingService, seven: Path
) -> None:
    answer = curl("--http2-prior-knowledge", "-HContent-Type: image/png", "--data-binary", f"@{seven}")
    assert answer.error
    assert "timed out" not in answer.error
    with socket.create_connection(address_of(service.url), TIMEOUT_S) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        whole = connection.makefile("rb").read()
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 505 ")
    assert said(505, body) == "505 unsupported_http_version"


def test_curl_puts_a_file_where_post_is_asked_and_reads_why_not(curl: AskByCurl, seven: Path, oversized: Path) -> None:
    for file in (seven, oversized):
        answer = curl("-T", file)
        assert (answer.said, answer.headers["allow"], answer.error) == ("405 method_not_allowed", "POST", None)


def test_curl_uploads_a_file_or_its_standard_input(curl: AskByCurl, seven: Path, oversized: Path) -> None:
    as_picture = ["-X", "POST", "-HContent-Type: image/png", "-T"]
    assert curl(*as_picture, seven).said == PICTURE
    assert curl(*as_picture, "-", stdin=seven.read_bytes()).said == PICTURE
    large = curl(*as_picture, oversized)
    assert (large.said, large.error) == (TOO_LARGE, None)
    chunked = curl(*as_picture, "-", stdin=oversized.read_bytes())
    assert (chunked.said, chunked.error) == (TOO_LARGE, None)


def test_curl_that_expects_100_sends_only_what_is_wanted(curl: AskByCurl, seven: Path, oversized: Path) -> None:
    expecting = ["-HContent-Type: image/png", "-HExpect: 100-continue", "--expect100-timeout", str(TIMEOUT_S)]
    small = curl(*expecting, "--data-binary", f"@{seven}")
    assert (small.said, small.uploaded) == (PICTURE, seven.stat().st_size)
    large = curl(*expecting, "--data-binary", f"@{oversized}")
    assert (large.said, large.uploaded, large.error) == (TOO_LARGE, 0, None)
    assert large.headers["connection"].lower() == "close"


def test_curl_keeps_its_connection_from_one_picture_to_the_next(curl: AskByCurl, seven: Path) -> None:
    answer = curl("-HContent-Type: image/png", "--data-binary", f"@{seven}", paths=("/predict",) * 4)
    assert (answer.said, answer.connects) == (PICTURE, [1, 0, 0, 0])


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/health/ready", "/models", "/metrics", "/openapi.json", "/v2", "/docs"]
)
def test_curl_gets_the_head_of_whatever_it_can_get(
    curl: AskByCurl, service: DrainingService, path: str, version: str
) -> None:
    got = httpx.get(service.url + path)
    headed = curl(version, "-I", paths=(path,))
    assert (headed.status, headed.error) == (200, None)
    assert headed.headers["content-type"] == got.headers["content-type"]
    if path not in {"/metrics", "/health", "/health/ready"}:  # their bodies tell of the moment
        assert headed.headers["content-length"] == str(len(got.content))


def test_curl_gets_no_head_of_what_is_only_posted(curl: AskByCurl) -> None:
    answer = curl("-I")
    assert (answer.status, answer.headers["allow"], answer.error) == (405, "POST", None)


def test_curl_asks_for_the_options_of_the_whole_service(curl: AskByCurl) -> None:
    answer = curl("-X", "OPTIONS", "--request-target", "*", paths=("",))
    assert answer.status in {200, 204}
    assert {"GET", "HEAD", "POST"} <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize("name", ["a;b.png", 'say \\"7\\".png', "C:\\\\7.png", "sieben – 七.png", " ", "7%0D%0A.png"])
def test_curls_odd_file_names_change_nothing(curl: AskByCurl, seven: Path, name: str) -> None:
    assert curl("-F", f'file=@{seven};filename="{name}"').said == PICTURE


def test_curl_compresses_what_is_json_and_no_picture(curl: AskByCurl, seven: Path) -> None:
    compressed = ["-HContent-Encoding: gzip", "--data-binary", "@-"]
    instances = json.dumps({"instances": [{"b64": b64encode(seven.read_bytes()).decode()}]})
    classified = curl(*compressed, paths=("/v1/models/mnist:predict",), stdin=gzip.compress(instances.encode()))
    assert classified.status == 200, classified.body
    (row,) = json.loads(classified.body)["predictions"]
    assert row.index(max(row)) == 7
    picture = curl(*compressed, "-HContent-Type: image/png", stdin=gzip.compress(seven.read_bytes()))
    assert picture.said == "415 unsupported_media_type"


@pytest.mark.parametrize(
    "head",
    [
        "POST /predict HTTP/1.1\r\nHost: a\r\n",
        "POST /predict HTTP/1.0\r\n",
        "POST /predict HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
        "POST /predict?top_k=1 HTTP/1.1\r\nHost: a\r\nX-Request-Timeout: 5\r\n",
    ],
    ids=["HTTP/1.1", "HTTP/1.0", "upgrade", "query"],
)
def test_netcat_closes_its_side_and_gets_its_answer(
    service: DrainingService, program: FindProgram, seven: Path, head: str
) -> None:
    picture = seven.read_bytes()
    request = f"{head}Content-Type: image/png\r\nContent-Length: {len(picture)}\r\n\r\n".encode() + picture
    host, port = address_of(service.url)
    done = run(program("nc.openbsd"), "-N", host, str(port), stdin=request)
    status, _, rest = done.stdout.partition(b"\r\n")
    assert status == b"HTTP/1.1 200 OK"
    assert said(200, rest.partition(b"\r\n\r\n")[2]) == PICTURE


def test_wget_looks_posts_and_reads_errors(
    service: DrainingService, program: FindProgram, seven: Path, oversized: Path
) -> None:
    wget = [program("wget"), "--tries=1", f"--timeout={TIMEOUT_S // 2}", "--content-on-error"]
    assert run(*wget, "--spider", f"{service.url}/health").returncode == 0
    for file, outcome in ((seven, (0, PICTURE)), (oversized, (8, TOO_LARGE))):  # 8: the server's answer is an error
        post = ["--header=Content-Type: image/png", f"--post-file={file}", "-O", "-", f"{service.url}/predict"]
        done = run(*wget, "--quiet", *post)
        assert (done.returncode, said(outcome[1][:3], done.stdout)) == outcome
