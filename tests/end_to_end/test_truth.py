"""What the service tells of itself, over real sockets: metrics of all workers, keys, and a log of events alone."""

import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.callers import total, until
from tests.end_to_end.conftest import StartService

PNG = {"content-type": "image/png"}
HOSTILE = "a%0A2026-01-01%20forged%1B%5B31m"
KEY = "key-of-nobody-else"


@pytest.fixture
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


def ask_on_new_connections(url: str, picture: bytes, count: int) -> None:
    for _ in range(count):
        assert httpx.post(f"{url}/predict", content=picture, headers=PNG).status_code == 200


def test_one_scrape_has_all_workers_and_goes_on_after_one_is_killed(
    start_service: StartService, trained_store: Path, seven: bytes
) -> None:
    service = start_service(trained_store, workers=2)

    def predicted() -> set[float]:
        """What many scrapes say, each over a connection of its own, so that every worker answers some."""
        return {
            total(httpx.get(f"{service.url}/metrics").text, "imageclass_requests_total", route="/predict", status="200")
            for _ in range(8)
        }

    ask_on_new_connections(service.url, seven, 20)
    assert predicted() == {20}
    os.kill(next(iter(service.workers.values())), signal.SIGKILL)
    service.wait_until_ready(1)
    ask_on_new_connections(service.url, seven, 10)
    assert predicted() == {30}
    page = httpx.get(f"{service.url}/metrics").text
    assert total(page, "imageclass_worker_starts_total") == 3
    until(lambda: total(httpx.get(f"{service.url}/metrics").text, "imageclass_workers_ready") == 2)
    assert total(httpx.get(f"{service.url}/metrics").text, "imageclass_resident_bytes") > 50e6
    assert service.stop() == 0


def test_keys_hold_on_both_ways_in_and_are_read_again_without_a_restart(
    start_service: StartService, trained_store: Path, seven: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n")
    service = start_service(trained_store, api_keys_file=file)
    both = [f"{service.url}/predict", f"{service.url}/predict?unknown=takes-the-long-way"]

    def status(url: str, key: str) -> int:
        return httpx.post(url, content=seven, headers={**PNG, "x-api-key": key}).status_code

    for url in both:
        assert status(url, KEY) == 200
        assert status(url, "another") == 401
        refused = httpx.post(url, content=seven, headers=PNG)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    (tmp_path / "next").write_text("new-key\n")
    (tmp_path / "next").replace(file)
    until(lambda: status(both[0], "new-key") == 200)
    assert [status(url, KEY) for url in both] == [401, 401]
    assert service.stop() == 0
    assert KEY not in str(service.log)


def test_the_log_is_events_alone_whatever_clients_send(
    start_service: StartService, trained_store: Path, seven: bytes
) -> None:
    """`Service` fails the test for a line that is no JSON object: also for what C libraries say of damaged pictures."""
    service = start_service(trained_store)
    damaged = bytearray(seven)
    damaged[60] ^= 1
    answers = [
        httpx.get(f"{service.url}/{HOSTILE}"),
        httpx.get(f"{service.url}/models/{HOSTILE}"),
        httpx.post(f"{service.url}/predict", content=bytes(damaged), headers=PNG),
        httpx.post(f"{service.url}/predict", files={"file": ("a\n{}\x1b[31m.png", bytes(damaged))}),
        httpx.post(f"{service.url}/predict", content=b"no picture", headers={**PNG, "x-request-id": "mine"}),
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 422, 422, 415]
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(b"NO HTTP\n{}\x1b[31m\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert service.stop() == 0
    told = {line["request_id"]: line["code"] for line in service.log if line["event"] == "request refused"}
    for answer in answers:
        assert told[answer.json()["request_id"]] == answer.json()["code"]
    assert told["mine"] == "unsupported_format"
