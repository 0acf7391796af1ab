"""The configurations of deploy/nginx, and the one of docs/how-to/behind-nginx.md, before real services."""

import re
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.conftest import FindProgram
from tests.end_to_end.callers import Callers, address_of, free_port, post, total, until
from tests.end_to_end.draining import DrainingService
from tests.end_to_end.fleets import Statistics, haproxy, kill, running
from tests.end_to_end.pages import REPOSITORY, opened
from tests.end_to_end.stand_in import badly, never, not_at_all, stand_in

_NGINX = REPOSITORY / "deploy" / "nginx"
REPLICAS = (_NGINX / "replicas.conf").read_text(encoding="utf-8")
SHADOWED = (_NGINX / "shadow.conf").read_text(encoding="utf-8")
_MAIN = """
daemon off;
user root;
worker_processes 2;
pid nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path bodies;
    proxy_temp_path proxied;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include ours.conf;
}
"""


@contextmanager
def nginx(program: str, text: str, folder: Path, **places: str) -> Iterator[tuple[str, Path]]:
    """Run nginx with a configuration in which addresses are the test's. Yield its URL and its log."""
    for place, address in places.items():
        assert text.count(place.replace("_", "-")) == 1, place
        text = text.replace(place.replace("_", "-"), address)
    port = free_port()
    (folder / "ours.conf").write_text(re.sub(r"listen \d+;", f"listen 127.0.0.1:{port};", text), encoding="utf-8")
    (folder / "main.conf").write_text(_MAIN, encoding="utf-8")
    log = folder / "error.log"
    command: list[str | Path] = [program, "-p", folder, "-c", folder / "main.conf", "-e", log]
    url = f"http://127.0.0.1:{port}"
    with running(command, folder / "output.log", url):
        yield url, log


@pytest.mark.chaos
def test_replicas_behind_nginx_lose_nothing_by_a_stop_and_what_it_held_by_a_kill(
    program: FindProgram, repository: Path, data_folder: Path, tmp_path: Path
) -> None:
    port = free_port()

    def replica(address: str) -> DrainingService:
        return DrainingService(repository / "model_store", host=address, port=port, engine="openvino")

    first, second = replica("127.0.0.2"), replica("127.0.0.3")
    places = {"replica_1:8000": f"127.0.0.2:{port}", "replica_2:8000": f"127.0.0.3:{port}"}
    request = post((data_folder / "7-00000.png").read_bytes())
    with nginx(program("nginx"), REPLICAS, tmp_path, **places) as (url, log):
        with Callers(lambda: address_of(url), request, count=8) as callers:
            callers.wait_for_answers(300)
            assert first.stop() == 0
            callers.wait_for_answers(300)
            first = replica("127.0.0.2")
            callers.wait_for_answers(600)
            until(lambda: predictions_of(first) > 0)  # nginx leaves it alone for a second
        assert callers.failed == {}
        with Callers(lambda: address_of(url), request, count=8) as callers:
            callers.wait_for_answers(300)
            kill(second)
            callers.wait_for_answers(600)
    assert first.stop() == 0
    lost = [line for line in log.read_text().splitlines() if "127.0.0.3" in line and "while reading response" in line]
    assert set(callers.failed) <= {"502"}
    assert sum(callers.failed.values()) <= len(lost)


def test_the_configuration_of_the_page_passes_uploads_and_host_names_on(
    program: FindProgram, repository: Path, data_folder: Path, tmp_path: Path
) -> None:
    with opened("docs/how-to/behind-nginx.md") as page:
        configuration = page.block("nginx")
    [(megabytes, seconds)] = re.findall(
        r"client_max_body_size (\d+)m;.*?proxy_read_timeout (\d+)s;", configuration, re.DOTALL
    )
    [hosts] = re.findall(r"`IMAGECLASS_ALLOWED_HOSTS=(\S+)`", page.text)
    assert int(megabytes) << 20 == Settings().max_batch_bytes
    assert int(seconds) > Settings().request_timeout_s
    service = DrainingService(repository / "model_store", allowed_hosts=hosts)
    place = {"127.0.0.1:8000": service.url.removeprefix("http://")}
    seven = (data_folder / "7-00000.png").read_bytes()
    with nginx(program("nginx"), configuration, tmp_path, **place) as (url, _), httpx.Client(base_url=url) as client:

        def ask(picture: bytes, host: str) -> httpx.Response:
            return client.post("/predict", content=picture, headers={"content-type": "image/png", "host": host})

        assert ask(seven, hosts).json()["label"] == "7"
        assert ask(seven, "other.example.com").json()["code"] == "unknown_host"
        assert ask(bytes(5_000_000), hosts).json()["code"] == "unsupported_format"  # nginx would stop it at 1 MB
    assert service.stop() == 0


def predictions_of(replica: DrainingService) -> float:
    """Return how many requests for a prediction a replica has answered."""
    page = httpx.get(f"{replica.url}/metrics", trust_env=False).text
    return total(page, "imageclass_requests_total", route="/predict", status="200")


STABLE, SHADOW = "127.0.0.2", "127.0.0.1"


@contextmanager
def shadowed(program: FindProgram, folder: Path, port: int, *, copies: bool = True) -> Iterator[str]:
    """Run HAProxy, and behind it nginx, which answers by `STABLE` and sends copies to `SHADOW`. Yield the URL."""
    places = {"replica:8000": f"{STABLE}:{port}", "shadow:8000": f"localhost:{port}"}  # a name, as in the file
    if not copies:
        places["mirror /copy;"] = ""
    with nginx(program("nginx"), SHADOWED, folder, **places) as (url, _):
        names = {"replica": {STABLE}, "mirror": {"127.0.0.1"}}
        variables = {"REPLICAS_PORT": port, "MIRROR_PORT": address_of(url)[1]}
        with haproxy(program("haproxy"), "shadow.cfg", folder, names, **variables) as proxy:
            Statistics(proxy.operations, "mirror").wait_for_servers(2)  # the replica is its backup
            yield proxy.url


def test_a_shadow_gets_copies_and_costs_no_request_whatever_becomes_of_it(program: FindProgram, tmp_path: Path) -> None:
    port = free_port()
    with (
        stand_in((STABLE, port), name="stable") as stable,
        shadowed(program, tmp_path, port) as url,
        Callers(lambda: address_of(url), post(b"picture"), count=8) as callers,
    ):
        with stand_in((SHADOW, port), name="shadow") as shadow:
            until(lambda: shadow.asked > 200)
            for behaviour in (badly, not_at_all, never):
                shadow.behaviour = behaviour
                callers.wait_for_answers(500)
        callers.wait_for_answers(500)
    assert callers.failed == {}
    assert set(callers.bodies) == {stable.body}
    assert stable.asked == callers.answered


def test_requests_go_on_without_the_nginx_that_copies_them(program: FindProgram, tmp_path: Path) -> None:
    port = free_port()
    with (
        stand_in((STABLE, port)) as stable,
        haproxy(program("haproxy"), "shadow.cfg", tmp_path, {"replica": {STABLE}}, REPLICAS_PORT=port) as proxy,
    ):
        Statistics(proxy.operations, "mirror").wait_for_servers(1)
        with Callers(lambda: address_of(proxy.url), post(b"picture"), count=8) as callers:
            callers.wait_for_answers(500)
    assert callers.failed == {}
    assert stable.asked == callers.answered


@pytest.mark.chaos
def test_a_shadow_that_hangs_or_is_gone_costs_no_request(
    program: FindProgram, repository: Path, data_folder: Path, tmp_path: Path
) -> None:
    port = free_port()
    stable = DrainingService(repository / "model_store", host=STABLE, port=port, engine="openvino")
    request = post((data_folder / "7-00000.png").read_bytes())
    for folder in ("without", "with"):
        (tmp_path / folder).mkdir()
    p99: dict[str, list[float]] = {"none": [], "hangs": [], "is gone": []}
    with (
        shadowed(program, tmp_path / "without", port, copies=False) as alone,
        shadowed(program, tmp_path / "with", port) as copied,
    ):
        for _ in range(5):
            for shadow, found in p99.items():
                with ExitStack() as stack:
                    if shadow == "hangs":
                        stack.enter_context(stand_in((SHADOW, port), never))
                    pick = partial(address_of, alone if shadow == "none" else copied)
                    callers = stack.enter_context(Callers(pick, request, count=2))
                    callers.wait_for_answers(1500)
                assert callers.failed == {}
                found.append(statistics.quantiles(callers.seconds, n=100)[98])
    assert stable.stop() == 0
    medians = {shadow: statistics.median(found) for shadow, found in p99.items()}
    for shadow, seconds in medians.items():
        sys.stdout.write(f"\na shadow, {shadow}: p99 {1000 * seconds:.2f} ms")
